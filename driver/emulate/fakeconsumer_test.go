package emulate

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
)

// fakeConsumer has a goroutine where its fake is attentive.
type fakeConsumer struct {
	f    *fake
	q    *fakeQueue
	in   *Inbox
	stop chan struct{}
	done sync.WaitGroup
	once sync.Once
}

func (f *fake) Consume(ctx context.Context, q *Queue, in *Inbox) (c Consumer, err error) {
	err = f.on(ctx, "consume", q, func(fq *fakeQueue) {
		fc := &fakeConsumer{f: f, q: fq, in: in, stop: make(chan struct{})}
		fq.consumers, fq.used = append(fq.consumers, fc), true
		fq.give()
		if f.attentive {
			fc.done.Go(fc.fetch)
		}
		c = fc
	})
	return c, err
}

func (c *fakeConsumer) fetch() {
	for {
		select {
		case <-c.in.More():
			c.f.mu.Lock()
			c.q.give()
			c.f.mu.Unlock()
		case <-c.stop:
			return
		}
	}
}

func (c *fakeConsumer) Settle(_ context.Context, d *Delivery, o driver.Outcome, delay time.Duration) error {
	c.f.at("settle")
	defer c.f.at("settled")
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if c.f.crashed.Load() {
		return driver.ErrClosed
	}
	if c.q.held[d] != c {
		return driver.ErrLost
	}
	delete(c.q.held, d)
	if o == driver.Nack {
		c.q.back(d, 1, delay)
		c.q.trim()
	}
	c.q.give()
	return nil
}

// back gives a new delivery of the same message to the queue.
func (q *fakeQueue) back(d *Delivery, attempts int, delay time.Duration) {
	again := &Delivery{Seq: d.Seq, Stored: d.Stored}
	again.Message, again.Exchange, again.Attempt = d.Message, d.Exchange, d.Attempt+attempts
	again.Redelivered = d.Redelivered || attempts > 0
	if delay <= 0 {
		q.put(again)
		return
	}
	q.later = append(q.later, again)
	time.AfterFunc(delay, func() {
		q.w.mu.Lock()
		defer q.w.mu.Unlock()
		if i := slices.Index(q.later, again); i >= 0 {
			q.later = slices.Delete(q.later, i, i+1)
			q.put(again)
			q.trim()
			q.give()
		}
	})
}

func (c *fakeConsumer) Extend(_ context.Context, ds []*Delivery) (lost []*Delivery, err error) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if c.f.crashed.Load() {
		return nil, driver.ErrUnconfirmed
	}
	c.q.extended++
	if c.q.lose {
		c.q.lose = false
		return ds, nil
	}
	return nil, nil
}

func (c *fakeConsumer) Close(context.Context) error {
	c.f.mu.Lock()
	c.in.Fail(driver.ErrClosed)
	if !c.f.crashed.Load() {
		prefetched, handed := c.in.Drain()
		for i, ds := range [][]*Delivery{prefetched, handed} {
			for _, d := range ds {
				if c.q.held[d] == c {
					delete(c.q.held, d)
					c.q.back(d, i, 0)
				}
			}
		}
		c.leave()
	}
	c.end()
	c.f.mu.Unlock()
	c.done.Wait()
	return nil
}

// leave takes the consumer from its queue, with what it holds.
func (c *fakeConsumer) leave() {
	q := c.q
	for d := range q.held {
		if q.held[d] == c {
			delete(q.held, d)
			q.back(d, 1, 0)
		}
	}
	if i := slices.Index(q.consumers, c); i >= 0 {
		q.consumers = slices.Delete(q.consumers, i, i+1)
	}
	if len(q.consumers) == 0 {
		q.touched = q.w.now()
	}
	q.trim()
	q.give()
}

// end ends the goroutine.
func (c *fakeConsumer) end() { c.once.Do(func() { close(c.stop) }) }
