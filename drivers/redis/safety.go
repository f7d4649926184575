package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// safety is what must have happened to a write, beside being done, before it
// counts.
type safety struct {
	replicas int  // so many replicas have it
	fsync    bool // it is in the append-only file, of the replicas too
}

// safeWait is how long one try waits for it: longer than the server takes from
// one fsync to the next.
const safeWait = 3 * time.Second

func (y safety) none() bool { return y == safety{} }

func (y safety) wait() time.Duration {
	if y.none() {
		return 0
	}
	return safeWait
}

// command goes behind writes, on the same connection, and is answered when they
// are safe; see unsafe.
func (y safety) command(ctx context.Context) *goredis.Cmd {
	if y.fsync {
		return goredis.NewCmd(ctx, "WAITAOF", 1, y.replicas, safeWait.Milliseconds())
	}
	return goredis.NewCmd(ctx, "WAIT", y.replicas, safeWait.Milliseconds())
}

// unsafe is why the writes before a command are not safe, by its answer. It means
// as much as a lost answer: they are done, and must be safe yet.
func (y safety) unsafe(c *goredis.Cmd) error {
	v, err := c.Result()
	if err != nil {
		return err
	}
	n, _ := v.(int64)
	if list, ok := v.([]any); ok && len(list) == 2 {
		if local, _ := list[0].(int64); local < 1 {
			return fmt.Errorf("the server has not written it to its append-only file within %v", safeWait)
		}
		n, _ = list[1].(int64)
	}
	if n < int64(y.replicas) {
		return fmt.Errorf("%d of %d replicas have it after %v", n, y.replicas, safeWait)
	}
	return nil
}

// write sends a command that writes in any case, also when it is sent again, and
// returns when it is as safe as the URL wants. f is for retry.
func (s *store) write(ctx context.Context, n *node, args []any) (any, error) {
	if s.cfg.safe.none() {
		return n.client.Do(ctx, args...).Result()
	}
	pipe := n.blocks.Pipeline()
	cmd, safe := goredis.NewCmd(ctx, args...), s.cfg.safe.command(ctx)
	_, _ = pipe.Process(ctx, cmd), pipe.Process(ctx, safe)
	exec(ctx, pipe)
	v, err := cmd.Result()
	if err == nil {
		err = s.cfg.safe.unsafe(safe)
	}
	return v, err
}

// check refuses a server that cannot do it.
func (y safety) check(ctx context.Context, n *node, server string) error {
	if !y.fsync {
		return nil
	}
	if !atLeast(server, "redis_version", 7, 2) && field(server, "valkey_version") == "" {
		return fmt.Errorf("%w: durability=fsync needs Redis 7.2 or newer: with an older one set appendfsync always there and leave the option out", errors.ErrUnsupported)
	}
	info, err := n.client.Info(ctx, "persistence").Result()
	if err == nil && field(info, "aof_enabled") != "1" {
		err = fmt.Errorf("%w: durability=fsync needs an append-only file: set appendonly yes in this Redis", errors.ErrUnsupported)
	}
	return err
}

// atLeast compares a version in an answer to INFO.
func atLeast(info, name string, major, minor int) bool {
	a, rest, _ := strings.Cut(field(info, name), ".")
	b, _, _ := strings.Cut(rest, ".")
	x, err1 := strconv.Atoi(a)
	y, err2 := strconv.Atoi(b)
	return err1 == nil && err2 == nil && (x > major || x == major && y >= minor)
}
