package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq"
	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/mem"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
	"github.com/polymq/polymq/routing"
)

const urlVariable = "POLYMQ_SOAK_URL"

// A worker is the load on one backend.
type worker struct {
	url  string
	conn *polymq.Conn
	rate int

	confirmed, received atomic.Int64
	fleeting            sync.Mutex // a connection that is about to be closed is there
}

var topology = routing.Topology{
	Exchanges: []routing.Exchange{{Name: "soak", Kind: routing.Topic}, {Name: "soak.dead", Kind: routing.Fanout}},
	Queues: []routing.Queue{
		{Name: "soak.work", DeadLetterExchange: "soak.dead"},
		{Name: "soak.audit"},
		{Name: "soak.graveyard"},
	},
	Bindings: []routing.Binding{
		{Exchange: "soak", Queue: "soak.work", Key: "work.#"},
		{Exchange: "soak", Queue: "soak.audit", Key: "#"},
		{Exchange: "soak.dead", Queue: "soak.graveyard"},
	},
}

// work loads one backend for as long as the run lasts and prints what it measures.
func work(url string, s settings) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return soak(ctx, url, s, func(m sample) error { return json.NewEncoder(os.Stdout).Encode(m) })
}

func soak(ctx context.Context, url string, s settings, show func(sample) error) error {
	w := &worker{url: url, rate: s.rate}
	var err error
	if w.conn, err = polymq.Open(ctx, url, nil); err != nil {
		return err
	}
	defer w.close(w.conn)
	if err := w.conn.Declare(ctx, topology); err != nil {
		return err
	}
	length := time.Duration(s.minutes * float64(time.Minute))
	publishing, stop := context.WithTimeout(ctx, length)
	consuming, end := context.WithCancel(ctx)
	var publishers, consumers sync.WaitGroup
	defer func() {
		stop()
		publishers.Wait()
		end()
		consumers.Wait()
	}()
	failures := make(chan error, 8)
	run := func(wg *sync.WaitGroup, what string, f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				failures <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	run(&consumers, "work", func() error { return w.consume(consuming, "soak.work", handle) })
	run(&consumers, "audit", func() error {
		return w.consume(consuming, "soak.audit", func(context.Context, *polymq.Delivery) error {
			w.received.Add(1)
			return nil
		})
	})
	run(&consumers, "graveyard", func() error {
		return w.consume(consuming, "soak.graveyard", func(context.Context, *polymq.Delivery) error { return nil })
	})
	run(&publishers, "publish", func() error { return w.publish(publishing) })
	run(&publishers, "come and go", func() error { return w.comeAndGo(publishing) })

	ticks := time.NewTicker(s.every)
	defer ticks.Stop()
	for publishing.Err() == nil {
		select {
		case <-ticks.C:
			m, err := w.measure(ctx)
			if err == nil {
				err = show(m)
			}
			if err != nil {
				return err
			}
		case err := <-failures:
			return err
		case <-publishing.Done():
		}
	}
	publishers.Wait()
	late := time.After(time.Minute)
	for w.received.Load() < w.confirmed.Load() {
		select {
		case <-time.After(10 * time.Millisecond):
		case err := <-failures:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return fmt.Errorf("%d messages were confirmed and %d came", w.confirmed.Load(), w.received.Load())
		}
	}
	end()
	consumers.Wait()
	select {
	case err := <-failures:
		return err
	default:
		return nil
	}
}

// consume runs until ctx ends.
func (w *worker) consume(ctx context.Context, queue string, h polymq.Handler) error {
	sub, err := w.conn.Subscriber(ctx, queue, &polymq.SubscriberOptions{Concurrency: 2})
	if err != nil {
		return err
	}
	return sub.Run(ctx, h)
}

// handle gives up some messages and tries others again.
func handle(_ context.Context, d *polymq.Delivery) error {
	switch d.Key {
	case "work.refused":
		return polymq.Permanent(errors.New("refused"))
	case "work.retried":
		if !d.Redelivered && d.Attempt < 2 {
			return polymq.RetryAfter(100*time.Millisecond, nil)
		}
	}
	return nil
}

// publish sends the rate until ctx ends, some twenty times a second: one message
// in fifty is refused, one is tried again, and one has a delay.
func (w *worker) publish(ctx context.Context) error {
	pub, err := w.conn.Publisher(ctx, "soak", nil)
	if err != nil {
		return err
	}
	body := make([]byte, 256)
	begin, n := time.Now(), 0
	ticks := time.NewTicker(50 * time.Millisecond)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return nil
		}
		due := int(time.Since(begin).Seconds() * float64(w.rate))
		var batch []*polymq.Message
		for ; n < due && len(batch) < w.rate; n++ {
			m := &polymq.Message{Key: "work.done", Body: body}
			switch n % 50 {
			case 0:
				m.Key = "work.refused"
			case 10:
				m.Key = "work.retried"
			case 20:
				m.Delay = time.Second
			}
			batch = append(batch, m)
		}
		if len(batch) == 0 {
			continue
		}
		// Not bound to ctx: at the end each has an outcome that is known.
		sending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		err := pub.Publish(sending, batch...)
		cancel()
		if err != nil {
			return err
		}
		w.confirmed.Add(int64(len(batch)))
	}
}

// comeAndGo opens connections, publishers and subscribers and closes them again.
func (w *worker) comeAndGo(ctx context.Context) error {
	ticks := time.NewTicker(3 * time.Second)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return nil
		}
		if err := w.come(); err != nil {
			return err
		}
	}
}

func (w *worker) come() error {
	w.fleeting.Lock()
	defer w.fleeting.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := polymq.Open(ctx, w.url, nil)
	if err != nil {
		return err
	}
	defer w.close(conn)
	for _, c := range []*polymq.Conn{conn, w.conn} {
		sub, err := c.Subscriber(ctx, "soak.graveyard", nil)
		if err != nil {
			return err
		}
		defer w.close(sub)
		pub, err := c.Publisher(ctx, "", nil)
		if err != nil {
			return err
		}
		defer w.close(pub)
		if err := pub.Publish(ctx, &polymq.Message{Key: "soak.graveyard"}); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) close(c interface{ Close(context.Context) error }) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "soak: close:", err)
	}
}

// measure waits for a moment in which nothing is there that is about to go.
func (w *worker) measure(ctx context.Context) (sample, error) {
	w.fleeting.Lock()
	defer w.fleeting.Unlock()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var m sample
	for _, q := range topology.Queues {
		info, err := w.conn.Inspect(ctx, q.Name)
		if err != nil {
			return m, err
		}
		m.Waiting += info.Ready
	}
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	m.Heap, m.Resident = mem.HeapInuse, resident(os.Getpid())
	m.Goroutines = runtime.NumGoroutine()
	m.Confirmed, m.Received = w.confirmed.Load(), w.received.Load()
	return m, nil
}
