package main

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var upToEight = []int{1, 2, 4, 8}

// publishAll publishes n messages, those with the same number modulo the keys to
// the same queue.
func publishAll(ctx context.Context, pub *polymq.Publisher, keys []string, n int) error {
	body := make([]byte, growthBody)
	const window = 256
	pending := make([]*polymq.Receipt, window)
	for i := range n + window {
		if r := pending[i%window]; r != nil {
			if err := r.Wait(ctx); err != nil {
				return err
			}
		}
		if pending[i%window] = nil; i < n {
			r, err := pub.PublishAsync(ctx, &polymq.Message{Key: keys[i%len(keys)], Body: body})
			if err != nil {
				return err
			}
			pending[i%window] = r
		}
	}
	return nil
}

func growPublishers(ctx context.Context, g *grower) error {
	conn, err := g.open(ctx)
	if err != nil {
		return err
	}
	const queue = "growth_publishers"
	if err := g.declare(ctx, conn, routing.Topology{Queues: []routing.Queue{{Name: queue}}}); err != nil {
		return err
	}
	return g.curve(ctx, "", growthRounds, upToEight, func(ctx context.Context, x int) (float64, error) {
		rate, err := g.rate(func(n int) error {
			return eachOf(x, n, func(n int) error {
				pub, err := conn.Publisher(ctx, "", nil)
				if err != nil {
					return err
				}
				return errors.Join(publishAll(ctx, pub, []string{queue}, n), pub.Close(ctx))
			})
		})
		_, perr := conn.Purge(ctx, queue)
		return rate, errors.Join(err, perr)
	})
}

// fill puts n messages into the queues.
func fill(ctx context.Context, conn *polymq.Conn, queues []string, n int) error {
	pub, err := conn.Publisher(ctx, "", nil)
	if err != nil {
		return err
	}
	return errors.Join(publishAll(ctx, pub, queues, n), pub.Close(ctx))
}

// drain consumes n messages of each queue, by so many subscribers of it.
func drain(ctx context.Context, conn *polymq.Conn, queues []string, subscribers, n int) (float64, error) {
	var subs []*polymq.Subscriber
	defer func() {
		for _, s := range subs {
			_ = s.Close(context.Background())
		}
	}()
	start := time.Now()
	for _, q := range queues {
		for range subscribers {
			s, err := conn.Subscriber(ctx, q, &polymq.SubscriberOptions{Prefetch: prefetch})
			if err != nil {
				return 0, err
			}
			subs = append(subs, s)
		}
	}
	total := n * len(queues)
	got := make(chan struct{}, total)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	failed := make(chan error, len(subs))
	for _, s := range subs {
		wg.Go(func() {
			for {
				d, err := s.Receive(ctx)
				if err == nil {
					err = d.Ack(ctx)
				}
				if err != nil {
					failed <- err
					return
				}
				got <- struct{}{}
			}
		})
	}
	var err error
	for i := 0; i < total && err == nil; i++ {
		select {
		case <-got:
		case err = <-failed:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	took := time.Since(start)
	stop()
	wg.Wait()
	return float64(total) / took.Seconds(), err
}

func growConsumers(ctx context.Context, g *grower) error {
	conn, err := g.open(ctx)
	if err != nil {
		return err
	}
	queues := []string{"growth_consumers"}
	if err := g.declare(ctx, conn, routing.Topology{Queues: []routing.Queue{{Name: queues[0]}}}); err != nil {
		return err
	}
	return g.curve(ctx, "", growthRounds, upToEight, func(ctx context.Context, x int) (float64, error) {
		const n = 20_000
		if err := fill(ctx, conn, queues, n); err != nil {
			return 0, err
		}
		return drain(ctx, conn, queues, x, n)
	})
}

func growQueues(ctx context.Context, g *grower) error {
	conn, err := g.open(ctx)
	if err != nil {
		return err
	}
	queues := many("growth_queues", 1000)
	var t routing.Topology
	for _, q := range queues {
		t.Queues = append(t.Queues, routing.Queue{Name: q})
	}
	if err := g.declare(ctx, conn, t); err != nil {
		return err
	}
	xs := []int{1, 10, 100, 1000}
	const total = 20_000
	consumed := map[int][]float64{}
	err = g.curve(ctx, "publish", growthRounds, xs, func(ctx context.Context, x int) (float64, error) {
		start := time.Now()
		if err := fill(ctx, conn, queues[:x], total); err != nil {
			return 0, err
		}
		rate := total / time.Since(start).Seconds()
		c, err := drain(ctx, conn, queues[:x], 1, total/x)
		consumed[x] = append(consumed[x], c)
		return rate, err
	})
	if err != nil {
		return err
	}
	return g.curve(ctx, "consume", growthRounds, measuredOf(xs, consumed), func(_ context.Context, x int) (float64, error) {
		v := consumed[x][0]
		consumed[x] = consumed[x][1:]
		return v, nil
	})
}

// measuredOf are those of xs that were measured beside another curve.
func measuredOf(xs []int, by map[int][]float64) []int {
	return slices.DeleteFunc(slices.Clone(xs), func(x int) bool { return len(by[x]) == 0 })
}

func many(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = prefix + strconv.Itoa(i)
	}
	return names
}
