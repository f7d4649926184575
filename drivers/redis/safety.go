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
	var args []any
	for _, w := range y.words() {
		args = append(args, w)
	}
	return goredis.NewCmd(ctx, args...)
}

func (y safety) words() []string {
	replicas, wait := strconv.Itoa(y.replicas), strconv.FormatInt(safeWait.Milliseconds(), 10)
	if y.fsync {
		return []string{"WAITAOF", "1", replicas, wait}
	}
	return []string{"WAIT", replicas, wait}
}

// unsafe is why the writes before a command are not safe, by its answer. It means
// as much as a lost answer: they are done, and must be safe yet.
func (y safety) unsafe(c *goredis.Cmd) error {
	v, err := c.Result()
	if err != nil {
		return err
	}
	local, n := int64(1), int64(0)
	switch v := v.(type) {
	case int64:
		n = v
	case []any:
		if len(v) == 2 {
			local, _ = v[0].(int64)
			n, _ = v[1].(int64)
		}
	}
	return y.short(local, n)
}

// answered is unsafe of a raw answer.
func (y safety) answered(a *answer) error {
	if err := a.peek(); err != nil {
		return err
	}
	local, n := int64(1), int64(0)
	if a.next() == '*' {
		a.array()
		local = a.integer()
	}
	n = a.integer()
	if a.err != nil {
		return a.err
	}
	return y.short(local, n)
}

// short is an error unless so many append-only files, the server's and those of
// replicas, or so many replicas, are enough.
func (y safety) short(local, n int64) error {
	if local < 1 {
		return fmt.Errorf("the server has not written it to its append-only file within %v", safeWait)
	}
	if n < int64(y.replicas) {
		return fmt.Errorf("%d of %d replicas have it after %v", n, y.replicas, safeWait)
	}
	return nil
}

// exec sends a pipeline of *goredis.Cmd whose answers are never nil. Where the server
// refuses the connection the client returns that, but leaves the commands as if
// they had been done.
func exec(ctx context.Context, pipe goredis.Pipeliner) {
	cmds, err := pipe.Exec(ctx)
	if err == nil {
		return
	}
	for _, cmd := range cmds {
		if c := cmd.(*goredis.Cmd); c.Err() == nil && c.Val() == nil {
			c.SetErr(err)
		}
	}
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
