package emulate

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// mortal is a fake whose process dies at a step.
type mortal struct {
	*fake
	fate atomic.Value // step
}

// step is a call that takes part in a move, before or after its effect.
type step struct {
	at   string
	late bool
}

func (m *mortal) die(call string, late bool) {
	if m.fate.CompareAndSwap(step{call, late}, step{}) {
		m.crash()
	}
}

func (m *mortal) Append(ctx context.Context, parcels []*Parcel, wait bool) {
	dead := parcels[0].Publishing.Message.Header[headerDeath] != nil
	if dead {
		m.die("append", false)
	}
	m.fake.Append(ctx, parcels, wait)
	if dead {
		m.die("append", true)
	}
}

func (m *mortal) Sweep(ctx context.Context, q *Queue, max int) (Swept, error) {
	s, err := m.fake.Sweep(ctx, q, max)
	if len(s.Dead) > 0 {
		m.die("sweep", true)
	}
	return s, err
}

func (m *mortal) Drop(ctx context.Context, q *Queue, ds []*Delivery) error {
	m.die("drop", false)
	err := m.fake.Drop(ctx, q, ds)
	m.die("drop", true)
	return err
}

func (m *mortal) Consume(ctx context.Context, q *Queue, in *Inbox) (Consumer, error) {
	c, err := m.fake.Consume(ctx, q, in)
	if err != nil {
		return nil, err
	}
	return mortalConsumer{c, m}, nil
}

type mortalConsumer struct {
	Consumer
	m *mortal
}

func (c mortalConsumer) Settle(ctx context.Context, d *Delivery, o driver.Outcome, delay time.Duration) error {
	c.m.die("settle", false)
	err := c.Consumer.Settle(ctx, d, o, delay)
	c.m.die("settle", true)
	return err
}

// TestDeathOfTheMover: whoever moves a message may die at any step: another
// brings it to an end, the message arrives, and within the deduplication window
// it arrives once.
func TestDeathOfTheMover(t *testing.T) {
	for _, how := range []struct {
		name  string
		q     routing.Queue
		steps []step
	}{
		{"rejected", routing.Queue{}, []step{{"append", false}, {"append", true}, {"settle", false}, {"settle", true}}},
		{"expired in the inbox", routing.Queue{TTL: 10 * time.Second}, []step{{"append", false}, {"append", true}, {"settle", false}, {"settle", true}}},
		{"expired", routing.Queue{TTL: 10 * time.Second}, []step{{"sweep", true}, {"append", false}, {"append", true}, {"drop", false}, {"drop", true}}},
		{"pushed out", routing.Queue{MaxLength: 1}, []step{{"sweep", true}, {"append", false}, {"append", true}, {"drop", false}, {"drop", true}}},
	} {
		for _, step := range how.steps {
			t.Run(fmt.Sprintf("%s/%s/%v", how.name, step.at, step.late), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld()
					m := &mortal{fake: w.client()}
					m.lease = 30 * time.Second
					c, err := New(t.Context(), m, Config{})
					if err != nil {
						t.Fatal(err)
					}
					b := &bench{t: t, w: w, f: m.fake, c: c}
					b.declare(graveyard(how.q))
					synctest.Wait()
					b.publish("q", "m")
					m.fate.Store(step)
					switch how.name {
					case "rejected":
						s := b.subscribe("q", 1)
						b.settle(s, b.receive(s), driver.Reject)
					case "expired in the inbox":
						// Nobody sweeps: the consumer comes as the time is over.
						c.(*conn).janitor.close(t.Context())
						time.Sleep(10 * time.Second)
						b.subscribe("q", 1)
					case "pushed out":
						b.publish("q", "last")
					}
					time.Sleep(20 * time.Second)
					synctest.Wait()
					if !m.crashed.Load() {
						t.Fatal("it did not die")
					}
					other := w.bench(t, 30*time.Second)
					defer other.close()
					b.close()
					s := other.subscribe("q", 1)
					if how.name == "rejected" && !(step.at == "settle" && step.late) {
						d := other.receive(s) // of the lease that ended
						other.settle(s, d, driver.Reject)
					}
					time.Sleep(5 * time.Minute)
					synctest.Wait()
					other.want("grave", "m")
					if how.q.MaxLength > 0 {
						other.settle(s, other.receive(s), driver.Ack)
					}
					other.nothing("q")
				})
			})
		}
	}
}
