package mem

import (
	"context"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// consumer puts a queue's messages into one inbox. Its goroutine does so when
// the inbox has room again; a publish or a nack does so itself.
type consumer struct {
	s    *store
	q    *queue
	in   *emulate.Inbox
	once sync.Once
	end  chan struct{}
	done chan struct{}

	// Guarded by the queue's mutex.
	share []*emulate.Delivery // what deal gives it
	idle  bool                // there is nothing to wake up for
}

func (s *store) Consume(ctx context.Context, eq *emulate.Queue, in *emulate.Inbox) (emulate.Consumer, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	q := s.queue(eq)
	if q == nil {
		return nil, emulate.ErrGone
	}
	c := &consumer{s: s, q: q, in: in, end: make(chan struct{}), done: make(chan struct{})}
	if err := q.join(c); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.consumers[c] = struct{}{}
	s.mu.Unlock()
	go c.run()
	return c, nil
}

func (c *consumer) run() {
	defer close(c.done)
	for {
		select {
		case <-c.end:
			return
		case <-c.in.More():
			c.q.distribute()
		}
	}
}

func (c *consumer) Settle(_ context.Context, d *emulate.Delivery, o driver.Outcome, delay time.Duration) error {
	return c.q.settle(d, o, delay)
}

// Extend has nothing to do: holds last as long as the connection.
func (c *consumer) Extend(context.Context, []*emulate.Delivery) ([]*emulate.Delivery, error) {
	return nil, nil
}

func (c *consumer) Close(context.Context) error {
	c.once.Do(func() {
		c.q.leave(c)
		c.q.giveBack(c)
		c.s.mu.Lock()
		delete(c.s.consumers, c)
		c.s.mu.Unlock()
		close(c.end)
	})
	<-c.done
	return nil
}

// Drain stops delivering; what was handed out stays held.
func (c *consumer) Drain(context.Context) error {
	c.q.leave(c)
	c.q.putBack(c)
	return nil
}
