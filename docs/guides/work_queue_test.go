package guides

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var jobs = routing.Topology{Queues: []routing.Queue{{
	Name:               "jobs",
	MaxAttempts:        5,
	DeadLetterExchange: routing.DefaultExchange,
	DeadLetterKey:      "jobs.failed",
}, {
	Name: "jobs.failed",
}}}

// work runs handlers until ctx ends, and then finishes those that run.
func work(ctx context.Context, conn *polymq.Conn, do func(ctx context.Context, job string) error) error {
	sub, err := conn.Subscriber(ctx, "jobs", &polymq.SubscriberOptions{Concurrency: 4, Prefetch: 8})
	if err != nil {
		return err
	}
	return sub.Run(ctx, func(ctx context.Context, d *polymq.Delivery) error {
		return do(ctx, string(d.Body)) // nil acknowledges, an error tries again later
	})
}

func enqueue(ctx context.Context, pub *polymq.Publisher, jobs ...string) error {
	msgs := make([]*polymq.Message, len(jobs))
	for i, job := range jobs {
		msgs[i] = &polymq.Message{Key: "jobs", Body: []byte(job)}
	}
	err := pub.Publish(ctx, msgs...)
	if failed, ok := errors.AsType[*polymq.PublishError](err); ok {
		for _, f := range failed.Failures { // the others are stored
			fmt.Printf("%s was not stored: %v\n", jobs[f.Index], f.Err)
		}
	}
	return err
}

func TestWorkQueue(t *testing.T) {
	everywhere(t, func(t *testing.T, ctx context.Context, conn *polymq.Conn) {
		if err := conn.Declare(ctx, jobs); err != nil {
			t.Fatal(err)
		}
		pub, err := conn.Publisher(ctx, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := enqueue(ctx, pub, "a", "b", "c", "d"); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var done []string
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		err = work(ctx, conn, func(_ context.Context, job string) error {
			mu.Lock()
			defer mu.Unlock()
			if done = append(done, job); len(done) == 4 {
				stop()
			}
			return nil
		})
		slices.Sort(done)
		if err != nil || !slices.Equal(done, []string{"a", "b", "c", "d"}) {
			t.Errorf("got %q, error %v", done, err)
		}
	})
}
