package redis

import (
	"context"
	"errors"
	"io"
	"slices"

	goredis "github.com/redis/go-redis/v9"
)

// connect makes sure of a connection of the reader's own, to the server that holds
// the queue.
func (c *consumer) connect() error {
	if c.conn != nil {
		return nil
	}
	n, err := c.s.at(c.key)
	if err != nil {
		return err
	}
	conn := n.blocks.Conn()
	id, err := conn.ClientID(c.ctx).Result()
	if err != nil {
		_ = conn.Close()
		return err
	}
	c.conn = conn
	c.connMu.Lock()
	c.connID, c.node = id, n
	c.connMu.Unlock()
	return nil
}

func (c *consumer) disconnect() {
	c.connMu.Lock()
	c.connID = 0
	c.connMu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// do sends a command. The answer lasts until the next one.
func (c *consumer) do(args []any) (answer, error) {
	cmd := goredis.NewRawWriteToCmd(c.ctx, c.first.empty(), args...)
	err := c.conn.Process(c.ctx, cmd)
	if err != nil && !errors.Is(err, goredis.Nil) {
		return answer{}, err
	}
	return answer{b: c.first.b}, nil
}

// both sends two commands in one go.
func (c *consumer) both(first, second []any) (a, b answer, err error) {
	pipe := c.conn.Pipeline()
	_ = pipe.Process(c.ctx, goredis.NewRawWriteToCmd(c.ctx, c.first.empty(), first...))
	_ = pipe.Process(c.ctx, goredis.NewRawWriteToCmd(c.ctx, c.second.empty(), second...))
	_, err = pipe.Exec(c.ctx)
	if err != nil && !errors.Is(err, goredis.Nil) {
		return a, b, err
	}
	return answer{b: c.first.b}, answer{b: c.second.b}, nil
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

// sink is where a raw answer is collected, over and over.
type sink struct{ b []byte }

const maxSink = 4 << 20 // a larger one is not kept

func (s *sink) empty() *sink {
	if s.b = s.b[:0]; cap(s.b) > maxSink {
		s.b = nil
	}
	return s
}

func (s *sink) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

// ReadFrom spares the client a buffer for each string of an answer.
func (s *sink) ReadFrom(r io.Reader) (int64, error) {
	for n := int64(0); ; {
		if l, ok := r.(*io.LimitedReader); ok && l.N == 0 {
			return n, nil
		}
		want := 512
		if l, ok := r.(*io.LimitedReader); ok {
			want = int(min(l.N, 1<<20))
		}
		s.b = slices.Grow(s.b, want)
		k, err := r.Read(s.b[len(s.b) : len(s.b)+want])
		s.b = s.b[:len(s.b)+k]
		n += int64(k)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
