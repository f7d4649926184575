package emulate

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// failing is a way to the world on which nothing is heard of a queue's storage, or none
// can be made, until it is mended.
type failing struct {
	*fake
	queue   string
	hangs   bool // else it fails
	mended  atomic.Bool
	refused atomic.Int64
}

func (f *failing) broken(ctx context.Context, q *Queue) error {
	if q.Name != f.queue || f.mended.Load() {
		return nil
	}
	f.refused.Add(1)
	if f.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return errors.New("not just now")
}

func (f *failing) QueueExists(ctx context.Context, q *Queue) (bool, error) {
	if f.hangs {
		if err := f.broken(ctx, q); err != nil {
			return false, err
		}
	}
	return f.fake.QueueExists(ctx, q)
}

func (f *failing) CreateQueue(ctx context.Context, q *Queue) error {
	if err := f.broken(ctx, q); err != nil {
		return err
	}
	return f.fake.CreateQueue(ctx, q)
}

// passing is what is declared here: the queue "gone" does not outlive the broker, x leads to both,
// and y to the one that lasts.
var passing = routing.Topology{
	Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Fanout}, {Name: "y", Kind: routing.Fanout}},
	Queues:    []routing.Queue{{Name: "gone", Transient: true}, {Name: "lasts"}},
	Bindings:  []routing.Binding{{Exchange: "x", Queue: "gone"}, {Exchange: "x", Queue: "lasts"}, {Exchange: "y", Queue: "lasts"}},
}

// restoring is a bench whose connection has declared passing on a way that can fail, and a
// publisher to each exchange.
func restoring(t *testing.T, hangs bool) (b *bench, f *failing, x, y driver.Publisher) {
	w := newWorld()
	f = &failing{fake: w.client(), queue: "gone", hangs: hangs}
	f.lease = 30 * time.Second
	f.mended.Store(true)
	b = &bench{t: t, w: w, f: f.fake}
	var err error
	if b.c, err = New(t.Context(), f, Config{}); err != nil {
		t.Fatal(err)
	}
	b.declare(passing)
	return b, f, b.publisher("x"), b.publisher("y")
}

// outcome publishes a message and says what became of it within a minute.
func (b *bench) outcome(p driver.Publisher, body string) error {
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	return publish(ctx, p, driver.Message{Body: []byte(body)})
}

// soon is an outcome, or that there is none within a minute.
func soon(o owner) error {
	select {
	case err := <-o:
		return err
	case <-time.After(time.Minute):
		return context.DeadlineExceeded
	}
}

// While a queue that is gone cannot be made anew, what is routed to it waits; all
// else goes on.
func TestRestoreHoldsBackOnlyItsOwn(t *testing.T) {
	for name, hangs := range map[string]bool{"it fails": false, "it hangs": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, f, x, y := restoring(t, hangs)
				defer b.close()
				f.mended.Store(false)
				b.w.lose()
				b.f.back()
				waits := b.batch(x, driver.Message{Body: []byte("both")})[0]
				if err := b.outcome(y, "other"); err != nil {
					t.Errorf("what goes elsewhere: %v", err)
				}
				if err := b.outcome(b.publisher(""), "nowhere"); !errors.Is(err, driver.ErrUnroutable) {
					t.Errorf("what no queue takes: %v", err)
				}
				if f.refused.Load() == 0 {
					t.Error("the queue was not missed")
				}
				select {
				case err := <-waits:
					t.Errorf("what is for the missing queue: %v", err)
				default:
				}
				f.mended.Store(true)
				if err := soon(waits); err != nil {
					t.Fatalf("what was for the missing queue: %v", err)
				}
				b.want("gone", "both")
				if got := len(b.bodies("lasts")); got != 2 {
					t.Errorf("the queue that was there has %d messages, want 2", got)
				}
			})
		})
	}
}

// Where the topology does not name the queue, or its binding, any more, nothing is
// routed without it until it stands again.
func TestRestoreHoldsWhatWouldMissIt(t *testing.T) {
	for name, lose := range map[string]func(b *bench){
		"the topology is lost": func(b *bench) {
			b.w.forget()
			b.w.mu.Lock()
			clear(b.w.elements)
			b.w.mu.Unlock()
		},
		"somebody else finds it lost": func(b *bench) {
			other := b.w.bench(b.t, 30*time.Second)
			defer other.close()
			if _, err := other.c.Inspect(b.t.Context(), "gone"); !errors.Is(err, driver.ErrNotFound) {
				b.t.Errorf("Inspect by another: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, f, x, _ := restoring(t, false)
				defer b.close()
				f.mended.Store(false)
				b.w.lose()
				b.f.back()
				waits := b.batch(x, driver.Message{Body: []byte("1")})
				time.Sleep(time.Minute) // it has been tried often
				lose(b)
				waits = append(waits, b.batch(x, driver.Message{Body: []byte("2")})...)
				time.Sleep(time.Minute)
				waits = append(waits, b.batch(x, driver.Message{Body: []byte("3")})...)
				time.Sleep(time.Minute)
				for i, o := range waits {
					select {
					case err := <-o:
						t.Errorf("message %d: %v before the queue stands", i+1, err)
					default:
					}
				}
				f.mended.Store(true)
				for i, o := range waits {
					if err := soon(o); err != nil {
						t.Fatalf("message %d: %v", i+1, err)
					}
				}
				if got := len(b.bodies("gone")); got != 3 {
					t.Errorf("%d of 3 messages are there", got)
				}
			})
		})
	}
}
