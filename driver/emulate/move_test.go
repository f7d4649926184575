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
// brings it to an end and the message arrives, once where its hold ends within
// the deduplication window.
func TestDeathOfTheMover(t *testing.T) {
	limit, ttl := routing.Queue{MaxLength: 1}, routing.Queue{TTL: 10 * time.Second}
	held := []step{{"append", false}, {"append", true}, {"settle", false}, {"settle", true}}
	swept := []step{{"sweep", true}, {"append", false}, {"append", true}, {"drop", false}, {"drop", true}}
	for _, how := range []struct {
		name  string
		q     routing.Queue
		steps []step
	}{
		{"rejected", routing.Queue{}, held}, {"found expired", ttl, held}, {"expired", ttl, swept}, {"pushed out", limit, swept},
	} {
		for _, step := range how.steps {
			for _, lease := range []time.Duration{fakeWindow / 2, 2 * fakeWindow} {
				t.Run(fmt.Sprintf("%s/%s/%v/%v", how.name, step.at, step.late, lease), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { dieMoving(t, how.name, how.q, step, lease) })
				})
			}
		}
	}
}

func dieMoving(t *testing.T, how string, q routing.Queue, step step, lease time.Duration) {
	w := newWorld()
	m := &mortal{fake: w.client()}
	m.lease = lease
	c, err := New(t.Context(), m, Config{})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, w: w, f: m.fake, c: c}
	b.declare(graveyard(q))
	synctest.Wait()
	b.publish("q", "m")
	m.fate.Store(step)
	switch how {
	case "rejected":
		s := b.subscribe("q", 1)
		b.settle(s, b.receive(s), driver.Reject)
	case "found expired":
		c.(*conn).janitor.close(t.Context()) // nobody sweeps when a consumer comes
		time.Sleep(q.TTL)
		b.subscribe("q", 1)
	case "expired":
		time.Sleep(q.TTL)
	case "pushed out":
		b.publish("q", "last")
	}
	synctest.Wait()
	if !m.crashed.Load() {
		t.Fatal("it did not die")
	}
	other := w.bench(t, lease)
	defer other.close()
	b.close()
	s := other.subscribe("q", 1)
	if how == "rejected" && !(step.at == "settle" && step.late) {
		other.settle(s, other.receive(s), driver.Reject) // when the lease has ended
	}
	time.Sleep(5 * time.Minute)
	synctest.Wait()
	want := []string{"m"}
	stored := step.at == "append" && step.late || (step.at == "settle" || step.at == "drop") && !step.late
	if stored && lease > fakeWindow {
		want = []string{"m", "m"}
	}
	other.want("grave", want...)
	if how == "pushed out" {
		other.settle(s, other.receive(s), driver.Ack)
	}
	other.nothing("q")
}
