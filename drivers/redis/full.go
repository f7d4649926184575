package redis

import (
	"context"
	"strconv"
	"strings"
)

// full reports that the server takes no writes for now: its memory is full, or it
// cannot write to its disk. As RabbitMQ's alarms it makes publishers wait.
func full(answer string) bool {
	return strings.HasPrefix(answer, "OOM ") || strings.HasPrefix(answer, "MISCONF ")
}

// lookForRoom is called when the server has taken a write that it takes with a full
// memory, too: so it can write to its disk, and its memory is to be asked about. Of
// several servers another one holds the queues, perhaps.
func (s *store) lookForRoom(ctx context.Context) {
	if !s.full.Load() || s.cfg.find != nil {
		return
	}
	v, err := s.call(ctx, s.namespace(), "INFO", "memory")
	if info, _ := v.(string); err == nil && hasRoom(info) {
		s.full.Store(false)
	}
}

// hasRoom is by what Redis itself counts.
func hasRoom(info string) bool {
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(field(info, name), 10, 64)
		return n
	}
	limit := number("maxmemory")
	return limit == 0 || number("used_memory")-number("mem_not_counted_for_evict") <= limit
}
