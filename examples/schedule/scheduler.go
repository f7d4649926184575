package main

import (
	"context"
	"fmt"
	"time"

	"github.com/polymq/polymq"
)

// rounds is how often a job that comes again runs, so that the program ends.
const rounds = 3

// scheduler publishes jobs and runs them.
type scheduler struct {
	queue string
	pub   *polymq.Publisher
	due   map[string]time.Time // not before then, by job
}

// after schedules a job by how long it is to wait.
func (s *scheduler) after(ctx context.Context, job string, wait time.Duration) error {
	s.due[job] = time.Now().Add(wait)
	return s.pub.Publish(ctx, &polymq.Message{Key: s.queue, Delay: wait, Body: []byte(job)})
}

// at schedules a job by the clock.
func (s *scheduler) at(ctx context.Context, job string, when time.Time) error {
	s.due[job] = when.Round(0) // by the wall clock, as At is
	return s.pub.Publish(ctx, &polymq.Message{Key: s.queue, At: when, Body: []byte(job)})
}

// every schedules one round of a job that comes again. The round is in its name
// and in its ID: published twice after a crash, it is the same message to
// brokers that deduplicate.
func (s *scheduler) every(ctx context.Context, job string, wait time.Duration, round int) error {
	name := fmt.Sprintf("%s, round %d", job, round)
	s.due[name] = time.Now().Add(wait)
	return s.pub.Publish(ctx, &polymq.Message{
		ID: s.queue + " " + name, Key: s.queue, Delay: wait, Body: []byte(name),
		Header: polymq.Header{"job": job, "wait": wait.Milliseconds(), "round": int64(round)},
	})
}

// work runs n jobs and says how many of them came before they were due.
func (s *scheduler) work(ctx context.Context, conn *polymq.Conn, n int) (ran []string, early int, err error) {
	ctx, done := context.WithCancel(ctx)
	defer done()
	sub, err := conn.Subscriber(ctx, s.queue, nil)
	if err != nil {
		return nil, 0, err
	}
	err = sub.Run(ctx, func(ctx context.Context, d *polymq.Delivery) error {
		job := string(d.Body)
		if time.Now().Before(s.due[job]) {
			early++
		}
		// The next round first, then the acknowledgement: a crash in between
		// schedules it twice, never not at all.
		if round, ok := d.Header.Int("round"); ok && round < rounds {
			wait, _ := d.Header.Int("wait")
			if err := s.every(ctx, d.Header.Get("job"), time.Duration(wait)*time.Millisecond, int(round)+1); err != nil {
				return err
			}
		}
		if ran = append(ran, job); len(ran) == n {
			done()
		}
		return nil
	})
	return ran, early, err
}
