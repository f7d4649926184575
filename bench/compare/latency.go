package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// latencyEvery is the time from one message to the next: 500 a second.
const latencyEvery = 2 * time.Millisecond

// latency is a round at a fixed rate: of each message, how long it took from
// just before it was published to when it was received.
func latency(ctx context.Context, c contender, n int, body []byte) (sample, error) {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	const warmUp = 10 // what the first ones take is the subscription's beginning
	took := make([]time.Duration, 0, n)
	var wg sync.WaitGroup
	var consumed error
	start := time.Now()
	seen := 0
	ready := make(chan struct{})
	s, err := measured(n, func() (began, over time.Time, err error) {
		wg.Go(func() {
			_, consumed = c.consume(ctx, func(body []byte) bool {
				if seen++; seen > warmUp {
					took = append(took, time.Since(start)-time.Duration(binary.LittleEndian.Uint64(body)))
				} else if seen == warmUp {
					close(ready)
				}
				return seen < n+warmUp
			})
			if consumed != nil {
				stop()
			}
		})
		due := time.Now()
		for i := range n + warmUp {
			time.Sleep(time.Until(due))
			body := slices.Clone(body)
			binary.LittleEndian.PutUint64(body, uint64(time.Since(start)))
			if err := c.publish(ctx, load{callers: 1, window: 1}, 1, body); err != nil {
				return began, over, err
			}
			due = due.Add(latencyEvery)
			if i == warmUp-1 {
				select {
				case <-ready:
				case <-ctx.Done():
					return began, over, errors.Join(ctx.Err(), consumed)
				}
				due = time.Now()
			}
		}
		wg.Wait()
		return began, over, consumed
	})
	if err != nil {
		stop()
		wg.Wait()
		return s, fmt.Errorf("%d of %d received: %w", seen, n+warmUp, errors.Join(err, consumed))
	}
	slices.Sort(took)
	s.value = float64(took[len(took)/2].Nanoseconds()) / 1e3
	s.p99 = float64(took[len(took)*99/100].Nanoseconds()) / 1e3
	return s, c.purge(ctx)
}
