package emulate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// TestInForce is promise 9 under random schedules: clients that freeze, lose
// renewals and hints, crash, or bind at the same time, and a broker that
// restarts and forgets leases. A publish that starts after Bind or Unbind has
// returned must be routed by it. POLYMQ_INFORCE_SCHEDULES says how many.
func TestInForce(t *testing.T) {
	n := uint64(500)
	if testing.Short() {
		n = 200
	}
	if v := os.Getenv("POLYMQ_INFORCE_SCHEDULES"); v != "" {
		var err error
		if n, err = strconv.ParseUint(v, 10, 64); err != nil || n == 0 {
			t.Fatalf("POLYMQ_INFORCE_SCHEDULES is %q: a number of schedules belongs there", v)
		}
	}
	checked := 0
	for seed := range n {
		s := schedule(t, seed)
		if len(s.wrong) > 0 {
			t.Fatalf("schedule %d: %s", seed, s.wrong[0])
		}
		checked += s.checked
	}
	if checked < int(n)*5 {
		t.Fatalf("only %d publishes were checked in %d schedules", checked, n)
	}
	t.Logf("%d publishes checked", checked)
}

// TestInForceNotices shows that TestInForce can fail: without leases, or
// without waiting for them, some schedule misroutes.
func TestInForceNotices(t *testing.T) {
	for _, hook := range []struct {
		name string
		flag *bool
	}{{"publishers ignore their lease", &testHookNoLease}, {"binders do not wait", &testHookNoWait}} {
		t.Run(hook.name, func(t *testing.T) {
			*hook.flag = true
			defer func() { *hook.flag = false }()
			for seed := range uint64(1000) {
				if s := schedule(t, seed); len(s.wrong) > 0 {
					return
				}
			}
			t.Fatal("1000 schedules misrouted nothing")
		})
	}
}

// scheduled is one random run.
type scheduled struct {
	w       *world
	mu      sync.Mutex
	rng     *rand.Rand
	keys    []*boundKey
	news    chan struct{} // closed when the next operation returns
	checked int
	wrong   []string
}

// boundKey is a binding that one binder sets and removes.
type boundKey struct {
	key   string
	began int  // operations that have begun
	ended int  // and returned
	bound bool // what the last one that returned made
}

func (s *scheduled) rand(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.IntN(n)
}

// trouble makes a client's calls slow, sometimes slower than a lease, and
// loses some answers.
func (s *scheduled) trouble(badness int) func(context.Context, string, bool) error {
	return func(ctx context.Context, call string, after bool) error {
		wait := time.Duration(s.rand(2000)) * time.Microsecond
		if s.rand(100) < badness {
			wait = time.Duration(s.rand(5000)) * time.Millisecond
		}
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			if call == "apply" && after {
				return fmt.Errorf("%w: %w", driver.ErrUnconfirmed, ctx.Err())
			}
			return ctx.Err()
		}
		if after && s.rand(100) < badness {
			switch call {
			case "renew":
				return errors.New("the answer was lost")
			case "apply":
				return fmt.Errorf("%w: the answer was lost", driver.ErrUnconfirmed)
			}
		}
		return nil
	}
}

func (s *scheduled) client(t *testing.T, badness int) (*fake, driver.Conn) {
	f := s.w.client()
	f.trouble = s.trouble(badness)
	f.deaf = func() bool { return s.rand(100) < 3*badness }
	c, err := New(t.Context(), f, Config{})
	if err != nil {
		t.Fatal(err)
	}
	return f, c
}

func schedule(t *testing.T, seed uint64) *scheduled {
	s := &scheduled{w: newWorld(), rng: rand.New(rand.NewPCG(seed, 9))}
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		s.news = make(chan struct{})
		badness := s.rand(20)
		_, setup := s.client(t, 0)
		want := routing.Topology{Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Direct}}, Queues: []routing.Queue{{Name: "q"}}}
		if err := setup.Declare(ctx, want); err != nil {
			t.Fatal(err)
		}
		var work sync.WaitGroup
		conns := []driver.Conn{setup}
		end := time.Now().Add(12 * time.Second)
		for i := range 1 + s.rand(3) {
			k := &boundKey{key: fmt.Sprint("k", i)}
			s.keys = append(s.keys, k)
			_, c := s.client(t, s.rand(badness+1))
			conns = append(conns, c)
			work.Go(func() { s.bind(c, k, end) })
		}
		for range 1 + s.rand(3) {
			f, c := s.client(t, badness)
			conns = append(conns, c)
			p, err := c.Publisher(ctx, driver.PublisherConfig{Exchange: "x"})
			if err != nil {
				continue // its first renewal failed: the program hears so
			}
			for range 1 + s.rand(2) {
				work.Go(func() { s.publish(p, end) })
			}
			if s.rand(4) == 0 {
				work.Go(func() {
					time.Sleep(time.Duration(s.rand(9000)) * time.Millisecond)
					f.crashed.Store(true)
				})
			}
		}
		if s.rand(3) == 0 {
			work.Go(func() {
				time.Sleep(time.Duration(s.rand(9000)) * time.Millisecond)
				s.w.forget()
			})
		}
		work.Wait()
		for _, c := range conns {
			if err := c.Close(ctx); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
	})
	return s
}

// bind binds and unbinds its key. An operation that fails may have happened,
// and is done again until it returns.
func (s *scheduled) bind(c driver.Conn, k *boundKey, end time.Time) {
	b := []routing.Binding{{Exchange: "x", Queue: "q", Key: k.key}}
	for time.Now().Before(end) {
		time.Sleep(time.Duration(s.rand(500)) * time.Millisecond)
		s.mu.Lock()
		bound := !k.bound
		k.began++
		s.mu.Unlock()
		for {
			var err error
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			if bound {
				err = c.Bind(ctx, b)
			} else {
				err = c.Unbind(ctx, b)
			}
			cancel()
			if err == nil {
				break
			}
		}
		s.mu.Lock()
		k.ended++
		k.bound = bound
		close(s.news)
		s.news = make(chan struct{})
		s.mu.Unlock()
	}
}

// publish publishes to random keys, now and then and right after an operation
// returned, and judges where no operation was on its way.
func (s *scheduled) publish(p driver.Publisher, end time.Time) {
	for time.Now().Before(end) {
		s.mu.Lock()
		news := s.news
		s.mu.Unlock()
		wait := time.NewTimer(time.Duration(s.rand(1000)) * time.Millisecond)
		select {
		case <-news:
		case <-wait.C:
		}
		wait.Stop()
		k := s.keys[s.rand(len(s.keys))]
		s.mu.Lock()
		began, idle, bound := k.began, k.began == k.ended, k.bound
		s.mu.Unlock()
		ctx, cancel := context.WithDeadline(context.Background(), end)
		err := publish(ctx, p, driver.Message{Key: k.key})
		cancel()
		s.mu.Lock()
		switch {
		case errors.Is(err, driver.ErrUnconfirmed):
		case err != nil && !errors.Is(err, driver.ErrUnroutable):
			s.wrong = append(s.wrong, "unexpected: "+err.Error())
		case idle && k.began == began:
			s.checked++
			if bound != (err == nil) {
				s.wrong = append(s.wrong, fmt.Sprintf("%s was bound=%t when the publish started, its outcome is %v", k.key, bound, err))
			}
		}
		s.mu.Unlock()
	}
}
