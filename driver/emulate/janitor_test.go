package emulate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// leaders are those of some connections that lead.
func leaders(bs ...*bench) (led []*bench) {
	for _, b := range bs {
		if b.c.(*conn).janitor.leads.Load() {
			led = append(led, b)
		}
	}
	return led
}

// moving is how many messages the janitor is moving.
func moving(b *bench) int {
	x := &b.c.(*conn).janitor.moves
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.open)
}

// TestNoJanitor: where no queue changes by itself there is none; where there is
// one that does, whoever hears of it has one.
func TestNoJanitor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		other := b.w.bench(t, 30*time.Second)
		defer other.close()
		started := func(b *bench) bool {
			j := &b.c.(*conn).janitor
			j.mu.Lock()
			defer j.mu.Unlock()
			return j.started
		}
		b.declare(plain)
		b.declare(routing.Topology{Queues: []routing.Queue{{Name: "c", MaxLength: 1}, {Name: "d", MaxLength: 1, DeadLetterExchange: "x", Overflow: routing.RejectPublish}}})
		time.Sleep(time.Minute)
		if started(b) || started(other) {
			t.Error("there is a janitor without work")
		}
		for i, q := range []routing.Queue{{TTL: 1e9}, {Expires: 1e9}, {AutoDelete: true}, {Exclusive: true}, {MaxBytes: 1, DeadLetterExchange: "x"}} {
			q.Name = fmt.Sprint("q", i)
			b := newBench(t)
			b.declare(routing.Topology{Queues: []routing.Queue{q}})
			synctest.Wait()
			if !started(b) || len(leaders(b)) != 1 {
				t.Errorf("nobody looks after %+v", q)
			}
			b.close()
		}
	})
}

// TestOneLeader: of several connections one leads; when it closes another does
// at once, when it dies another does after its term, and queues are looked
// after all the time but that.
func TestOneLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var bs []*bench
		for range 4 {
			bs = append(bs, w.bench(t, 30*time.Second))
		}
		var mu sync.Mutex
		swept := map[*bench]int{}
		for _, b := range bs {
			b.f.trouble = func(_ context.Context, call string, after bool) error {
				mu.Lock()
				defer mu.Unlock()
				if call == "sweep" && !after {
					swept[b]++
				}
				return nil
			}
		}
		bs[0].declare(graveyard(routing.Queue{TTL: time.Second}))
		for _, b := range bs {
			b.publisher("") // reads the topology
		}
		var want []string
		for round := 0; len(bs) > 1; round++ {
			time.Sleep(20 * time.Second)
			synctest.Wait()
			led := leaders(bs...)
			if len(led) != 1 {
				t.Fatalf("%d of %d lead", len(led), len(bs))
			}
			mu.Lock()
			clear(swept)
			mu.Unlock()
			time.Sleep(20 * time.Second)
			mu.Lock()
			if len(swept) != 1 || swept[led[0]] == 0 {
				t.Errorf("swept by %v", swept)
			}
			mu.Unlock()
			i := slices.Index(bs, led[0])
			bs = slices.Delete(bs, i, i+1)
			takeOver := leadRenew
			if round%2 == 0 {
				led[0].f.crash()
				takeOver += leadTerm
				time.AfterFunc(time.Hour, led[0].close)
			} else {
				led[0].close()
			}
			bs[0].publish("q", "m")
			want = append(want, "m")
			time.Sleep(takeOver + time.Second)
			synctest.Wait()
			bs[0].want("grave", want...)
		}
		for _, b := range bs {
			b.close()
		}
		time.Sleep(2 * time.Hour)
	})
}

// TestPushedOut: what a message pushes out of a limited queue arrives among
// the dead letters at once where this process leads, and soon where another
// does.
func TestPushedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(graveyard(routing.Queue{MaxLength: 2}))
		synctest.Wait()
		other := b.w.bench(t, 30*time.Second)
		defer other.close()
		b.publish("q", "1", "2", "3")
		synctest.Wait()
		b.want("q", "2", "3")
		b.want("grave", "1")
		if got := b.deaths("grave", 0); !slices.Equal(got, []string{"q maxlen 1"}) {
			t.Errorf("deaths %q", got)
		}
		time.Sleep(time.Minute)
		other.publish("q", "4", "5")
		time.Sleep(sweepEvery)
		synctest.Wait()
		b.want("grave", "1", "2", "3")
		if len(leaders(b)) != 1 {
			t.Error("the first does not lead any more")
		}
		s := b.subscribe("q", 2)
		held := []*driver.Delivery{b.receive(s), b.receive(s)}
		b.publish("q", "6", "7")
		synctest.Wait()
		b.want("grave", "1", "2", "3")
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		b.want("q", "6", "7")
		b.want("grave", "1", "2", "3", string(held[0].Message.Body), string(held[1].Message.Body))
	})
}

// TestSweptNowhere: what an idle queue gives up and no queue takes is kept, and
// told of once; it does not hold up other queues. When a queue takes it, it
// arrives once. No more is taken from a queue than is bounded.
func TestSweptNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		log := b.log()
		want := graveyard(routing.Queue{TTL: time.Second})
		want.Queues = append(want.Queues, routing.Queue{Name: "stuck", TTL: time.Second, DeadLetterExchange: "later", DeadLetterKey: "k"})
		b.declare(want)
		n := maxAside + 50
		var bodies []string
		for i := range n {
			bodies = append(bodies, fmt.Sprint(i))
		}
		b.publish("stuck", bodies...)
		time.Sleep(70 * time.Second)
		b.publish("q", "m")
		time.Sleep(1010 * time.Millisecond)
		synctest.Wait()
		b.want("grave", "m")
		if n := moving(b); n != maxAside {
			t.Errorf("%d are on their way, want %d", n, maxAside)
		}
		if got := log.String(); strings.Count(got, "nowhere to go") != 1 || strings.Count(got, "level=") != 1 {
			t.Errorf("logged:\n%.2000s", got)
		}
		b.declare(routing.Topology{
			Exchanges: []routing.Exchange{{Name: "later", Kind: routing.Direct}},
			Bindings:  []routing.Binding{{Exchange: "later", Queue: "grave", Key: "k"}},
		})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		b.nothing("stuck")
		got := b.bodies("grave")
		slices.Sort(got)
		slices.Sort(bodies)
		if !slices.Equal(got, append(bodies, "m")) {
			t.Errorf("%d arrived, want %d", len(got), n+1)
		}
	})
}

// TestSweptLarge: of large messages fewer are on their way at once.
func TestSweptLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(routing.Topology{Queues: []routing.Queue{{Name: "q", TTL: time.Second, DeadLetterExchange: "missing"}}})
		body := make([]byte, maxAsideBytes/4)
		p := b.publisher("")
		const n = 3 * sweepMax
		for range n {
			if err := publish(t.Context(), p, driver.Message{Key: "q", Body: body}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := moving(b); n == 0 || n > sweepMax {
			t.Errorf("%d messages of %d bytes are on their way", n, len(body))
		}
	})
}

// TestSweptUnconfirmed: a message that is on its way for longer than its hold
// is taken anew, not moved anew.
func TestSweptUnconfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(graveyard(routing.Queue{TTL: time.Second}))
		start := time.Now()
		b.f.refuse = func(p *Parcel) error {
			if p.Queue.Name == "grave" && time.Since(start) < 5*time.Minute {
				return driver.ErrUnconfirmed
			}
			return nil
		}
		b.publish("q", "m")
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		if n := moving(b); n != 1 {
			t.Errorf("one message is moved %d times", n)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		b.want("grave", "m")
		b.nothing("q")
	})
}

// TestCloseLookingAfter: whatever the janitor, the retrier and the movers are
// about, Close ends it, and what they had not finished another connection does.
func TestCloseLookingAfter(t *testing.T) {
	total := 0
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 4))
			var mu sync.Mutex
			random := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return rng.IntN(n)
			}
			b := newBench(t)
			b.f.attentive = true
			b.f.trouble = func(_ context.Context, call string, _ bool) error {
				time.Sleep(time.Duration(random(2000)) * time.Microsecond)
				if random(20) == 0 && call != "consume" {
					return fmt.Errorf("a call went wrong: %w", driver.ErrUnconfirmed)
				}
				return nil
			}
			b.f.refuse = func(*Parcel) error {
				if random(5) == 0 {
					return driver.ErrUnconfirmed
				}
				return nil
			}
			want := graveyard(routing.Queue{TTL: 3 * time.Millisecond, MaxLength: 3})
			want.Queues = append(want.Queues, routing.Queue{Name: "temporary", AutoDelete: true})
			for b.c.Declare(t.Context(), want) != nil {
			}
			var work sync.WaitGroup
			var confirmed atomic.Int32
			for range 2 {
				work.Go(func() {
					for {
						p, err := b.c.Publisher(t.Context(), driver.PublisherConfig{})
						for err == nil {
							m := driver.Message{Key: "q", TTL: time.Duration(random(3)) * time.Millisecond, Delay: time.Duration(max(random(30)-20, 0)) * time.Millisecond}
							if err = publish(t.Context(), p, m); err == nil {
								confirmed.Add(1)
							}
						}
						if errors.Is(err, driver.ErrClosed) {
							return
						}
					}
				})
			}
			work.Go(func() {
				for range 20 {
					for _, q := range []string{"q", "temporary"} {
						s, err := b.c.Subscriber(t.Context(), driver.SubscriberConfig{Queue: q, Prefetch: 2})
						if err == nil {
							time.Sleep(time.Millisecond)
							s.Close(t.Context())
						}
					}
				}
			})
			time.Sleep(time.Duration(seed) * 3 * time.Millisecond)
			b.close()
			work.Wait()
			other := b.w.bench(t, 30*time.Second)
			defer other.close()
			other.publisher("")
			time.Sleep(70 * time.Second)
			synctest.Wait()
			other.nothing("q")
			if n := len(other.bodies("grave")); n < int(confirmed.Load()) {
				t.Errorf("seed %d: %d were confirmed, %d are among the dead letters", seed, confirmed.Load(), n)
			}
			total += int(confirmed.Load())
		})
	}
	if total < 100 {
		t.Errorf("%d messages were confirmed in all", total)
	}
}

// TestMovedOnce: what was moved is removed, also where the connection closes
// meanwhile or the broker does not answer for longer than a hold lasts: it is
// not moved again.
func TestMovedOnce(t *testing.T) {
	for _, how := range []string{"Close", "no answer"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				b, next := w.bench(t, 2*fakeWindow), w.bench(t, 2*fakeWindow)
				defer next.close()
				var down atomic.Bool
				down.Store(how == "no answer")
				b.f.trouble = func(ctx context.Context, call string, _ bool) error {
					if call != "drop" && call != "sweep" {
						return nil
					}
					if call == "drop" && down.Load() {
						return errors.New("no answer")
					}
					return sleep(ctx, ctx, time.Millisecond/2)
				}
				b.declare(graveyard(routing.Queue{TTL: time.Second}))
				next.publisher("")
				var want []string
				for i := range 50 {
					want = append(want, fmt.Sprint(i))
				}
				b.publish("q", want...)
				for len(b.bodies("grave")) == 0 {
					time.Sleep(time.Millisecond / 10)
				}
				if how == "no answer" {
					time.Sleep(5 * fakeWindow)
					down.Store(false)
					time.Sleep(time.Second)
				}
				b.close()
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				next.want("grave", want...)
				next.nothing("q")
			})
		})
	}
}

// TestLeaderMayNotDelete: one that may not change the topology looks after what
// it may, and makes way for who may do the rest.
func TestLeaderMayNotDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		admin, app := w.bench(t, 30*time.Second), w.bench(t, 30*time.Second)
		defer app.close()
		app.f.trouble = func(_ context.Context, call string, after bool) error {
			if call == "delete" || call == "apply" {
				return driver.ErrPermission
			}
			return nil
		}
		topology := graveyard(routing.Queue{TTL: 20 * time.Second})
		topology.Queues = append(topology.Queues, routing.Queue{Name: "ends", Expires: 10 * time.Second})
		admin.declare(topology)
		app.publish("q", "1")
		admin.close()
		time.Sleep(time.Minute)
		app.want("grave", "1")
		if !app.there("ends") {
			t.Error("who may not delete did")
		}
		admin = w.bench(t, 30*time.Second)
		defer admin.close()
		admin.publisher("") // reads the topology
		time.Sleep(2 * time.Minute)
		if admin.there("ends") {
			t.Error("who may delete did not come to it")
		}
	})
}
