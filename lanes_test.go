package polymq_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
)

// byFirst is the first letter of the ID.
func byFirst(d *polymq.Delivery) string { return d.ID[:1] }

func TestRunOrderBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s := subscriber(t, f, &polymq.SubscriberOptions{Concurrency: 3, OrderBy: byFirst})
		f.deliver("a1", "a2", "a3", "a4", "b1", "c1", "b2", "d1")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		var mu sync.Mutex
		var order []string
		running := map[string]int{}
		began := time.Now()
		go func() {
			done <- s.Run(ctx, func(ctx context.Context, d *polymq.Delivery) error {
				mu.Lock()
				order = append(order, d.ID)
				if running[byFirst(d)]++; running[byFirst(d)] > 1 {
					t.Errorf("%s is handled beside another of its key", d.ID)
				}
				key := byFirst(d)
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				running[key]--
				mu.Unlock()
				d.ID = "zapped" // what a handler does to a delivery leads to no other lane
				return nil
			})
		}()
		for {
			synctest.Wait()
			if len(f.settlements()) == 8 {
				break
			}
			time.Sleep(time.Second / 10)
		}
		// a takes four seconds, and all else goes past it.
		if took := time.Since(began); took > 4*time.Second+time.Second/2 {
			t.Errorf("it took %v", took)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for key, want := range map[string]string{"a": "a1 a2 a3 a4", "b": "b1 b2"} {
			of := slices.DeleteFunc(slices.Clone(order), func(id string) bool { return id[:1] != key })
			if got := strings.Join(of, " "); got != want {
				t.Errorf("handled in the order %s, want %s", got, want)
			}
		}
	})
}

// What waits behind a key when Run ends is not begun, and not settled.
func TestRunOrderByDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s := subscriber(t, f, &polymq.SubscriberOptions{Concurrency: 2, OrderBy: byFirst})
		f.deliver("a1", "a2", "a3")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- s.Run(ctx, func(context.Context, *polymq.Delivery) error {
				time.Sleep(time.Minute / 3)
				return nil
			})
		}()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := f.settlements(); len(got) != 1 || got[0].ID != "a1" || len(f.queue) != 0 {
			t.Errorf("settled %v, %d left", got, len(f.queue))
		}
	})
}

// A failure does not stop its key.
func TestRunOrderByFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s := subscriber(t, f, &polymq.SubscriberOptions{Concurrency: 2, OrderBy: byFirst, Backoff: func(int) time.Duration { return time.Minute }})
		f.deliver("a1", "a2")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- s.Run(ctx, func(_ context.Context, d *polymq.Delivery) error {
				time.Sleep(time.Second)
				if d.ID == "a1" {
					return errors.New("not now")
				}
				return nil
			})
		}()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want := []settlement{{"a1", driver.Nack, time.Minute}, {"a2", driver.Ack, 0}}
		if got := f.settlements(); !slices.Equal(got, want) {
			t.Errorf("settled %v", got)
		}
	})
}
