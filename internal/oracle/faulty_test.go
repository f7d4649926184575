package oracle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// faulty is a client that is wrong in one way.
type faulty struct {
	client
	queue   func(q *routing.Queue)  // what it makes of a declaration
	message func(m *polymq.Message) // of a publish
	outcome func(o string) string   // of a settlement
	arrived func(d *Delivered)      // of a delivery
	failed  func(err error) error   // of an error
	purged  func(n int) int         // of a purge
	swaps   bool                    // deliveries
	loses   bool                    // every seventh message
	n       int                     // messages published
}

func (f *faulty) fail(err error) error {
	if f.failed != nil {
		return f.failed(err)
	}
	return err
}

func (f *faulty) declare(ctx context.Context, on int, t routing.Topology) error {
	if f.queue != nil {
		t.Queues = slices.Clone(t.Queues)
		for i := range t.Queues {
			f.queue(&t.Queues[i])
		}
	}
	return f.fail(f.client.declare(ctx, on, t))
}

func (f *faulty) bind(ctx context.Context, on int, b routing.Binding) error {
	return f.fail(f.client.bind(ctx, on, b))
}

func (f *faulty) deleteQueue(ctx context.Context, on int, queue string, o polymq.DeleteOptions) error {
	return f.fail(f.client.deleteQueue(ctx, on, queue, o))
}

func (f *faulty) purge(ctx context.Context, on int, queue string) (int, error) {
	n, err := f.client.purge(ctx, on, queue)
	if f.purged != nil {
		n = f.purged(n)
	}
	return n, f.fail(err)
}

func (f *faulty) publish(ctx context.Context, on int, exchange string, drop bool, ms []polymq.Message) []error {
	ms = slices.Clone(ms)
	errs := make([]error, len(ms))
	for i := range ms {
		if f.message != nil {
			f.message(&ms[i])
		}
		if f.n++; f.loses && f.n%7 == 0 {
			continue
		}
		errs[i] = f.fail(f.client.publish(ctx, on, exchange, drop, ms[i:i+1])[0])
	}
	return errs
}

func (f *faulty) subscribe(ctx context.Context, on int, queue string, prefetch int) (subscription, error) {
	s, err := f.client.subscribe(ctx, on, queue, prefetch)
	return &faultySubscription{subscription: s, f: f}, f.fail(err)
}

type faultySubscription struct {
	subscription
	f     *faulty
	later *received
}

func (s *faultySubscription) receive(ctx context.Context) (*received, error) {
	r, err := s.next(ctx)
	if err == nil && s.f.arrived != nil {
		s.f.arrived(&r.Delivered)
	}
	return r, err
}

func (s *faultySubscription) next(ctx context.Context) (*received, error) {
	if r := s.later; r != nil {
		s.later = nil
		return r, nil
	}
	r, err := s.subscription.receive(ctx)
	if err != nil || !s.f.swaps {
		return r, err
	}
	soon, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if second, err := s.subscription.receive(soon); err == nil {
		s.later = r
		return second, nil
	}
	return r, nil
}

func (s *faultySubscription) settle(ctx context.Context, r *received, outcome string, delay time.Duration) error {
	if s.f.outcome != nil {
		outcome = s.f.outcome(outcome)
	}
	return s.f.fail(s.subscription.settle(ctx, r, outcome, delay))
}

func silent(sentinel error) func(error) error {
	return func(err error) error {
		if errors.Is(err, sentinel) {
			return nil
		}
		return err
	}
}

func instead(of, with string) func(string) string {
	return func(o string) string {
		if o == of {
			return with
		}
		return o
	}
}

// ofDeath changes the newest death of a delivery.
func ofDeath(change func(death map[string]any)) func(d *Delivered) {
	return func(d *Delivered) {
		if deaths := deathsOf(d.Message.Header); len(deaths) > 0 {
			change(deaths[0])
		}
	}
}

// faults are ways to be wrong, and where they show.
var faults = []struct {
	name   string
	themes []string
	f      faulty
}{
	{"drops a death", []string{"dead letters"}, faulty{arrived: func(d *Delivered) {
		if list, ok := d.Message.Header["x-death"].([]any); ok {
			d.Message.Header["x-death"] = list[1:]
		}
	}}},
	{"counts deaths wrongly", []string{"dead letters"}, faulty{arrived: ofDeath(func(t map[string]any) { t["count"] = int64(2) })}},
	{"says another reason", []string{"queue TTL"}, faulty{arrived: ofDeath(func(t map[string]any) { t["reason"] = "rejected" })}},
	{"forgets the keys of a death", []string{"dead letters"}, faulty{arrived: ofDeath(func(t map[string]any) { t["routing-keys"] = []any{} })}},
	{"forgets when a death was", []string{"dead letters"}, faulty{arrived: ofDeath(func(t map[string]any) { delete(t, "time") })}},
	{"loses the first death", []string{"dead letters"}, faulty{arrived: func(d *Delivered) { delete(d.Message.Header, "x-first-death-queue") }}},
	{"swaps two deliveries", []string{"routing"}, faulty{swaps: true}},
	{"loses a message", []string{"routing"}, faulty{loses: true}},
	{"loses a property", []string{"routing"}, faulty{message: func(m *polymq.Message) { m.ContentType = "" }}},
	{"loses the time", []string{"routing"}, faulty{message: func(m *polymq.Message) { m.Time = time.Time{} }}},
	{"changes a header's type", []string{"routing"}, faulty{arrived: func(d *Delivered) {
		for k, v := range d.Message.Header {
			if n, ok := v.(int64); ok {
				d.Message.Header[k] = float64(n)
			}
		}
	}}},
	{"ignores CC", []string{"routing", "dead letters"}, faulty{message: func(m *polymq.Message) {
		if cc := m.Header["CC"]; cc != nil {
			m.Header = polymq.Header{"cc": cc}
		}
	}}},
	{"unroutable is silent", []string{"routing"}, faulty{failed: silent(polymq.ErrUnroutable)}},
	{"not found is silent", []string{"topology"}, faulty{failed: silent(polymq.ErrNotFound)}},
	{"conflict is silent", []string{"topology"}, faulty{failed: silent(polymq.ErrConflict)}},
	{"rejected is silent", []string{"max length"}, faulty{failed: silent(polymq.ErrRejected)}},
	{"in use is silent", []string{"exclusive"}, faulty{failed: silent(polymq.ErrInUse)}},
	{"purge counts one more", []string{"routing"}, faulty{purged: func(n int) int { return n + 1 }}},
	{"nack is ack", []string{"returns"}, faulty{outcome: instead(Nack, Ack)}},
	{"reject is ack", []string{"dead letters"}, faulty{outcome: instead(Reject, Ack)}},
	{"reject is nack", []string{"dead letters"}, faulty{outcome: instead(Reject, Nack)}},
	{"never says redelivered", []string{"returns"}, faulty{arrived: func(d *Delivered) { d.Redelivered = false }}},
	{"ignores the TTL of messages", []string{"message TTL"}, faulty{message: func(m *polymq.Message) { m.TTL = 0 }}},
	{"ignores the TTL of queues", []string{"queue TTL"}, faulty{queue: func(q *routing.Queue) { q.TTL = 0 }}},
	{"expires what lives", []string{"message TTL"}, faulty{message: func(m *polymq.Message) { m.TTL = 50 * time.Millisecond }}},
	{"ignores limits", []string{"max length"}, faulty{queue: func(q *routing.Queue) { q.MaxLength, q.MaxBytes, q.Overflow = 0, 0, "" }}},
	{"a limit is one higher", []string{"max length"}, faulty{queue: func(q *routing.Queue) {
		if q.MaxLength > 0 {
			q.MaxLength++
		}
	}}},
	{"drops instead of rejecting", []string{"max length"}, faulty{queue: func(q *routing.Queue) { q.Overflow = "" }}},
	{"ignores priorities", []string{"priority"}, faulty{queue: func(q *routing.Queue) { q.MaxPriority = 0 }}},
	{"ignores the dead-letter key", []string{"dead letters"}, faulty{queue: func(q *routing.Queue) { q.DeadLetterKey = "" }}},
	{"all consumers are active", []string{"single active consumer"}, faulty{queue: func(q *routing.Queue) { q.SingleActiveConsumer = false }}},
	{"nothing is exclusive", []string{"exclusive"}, faulty{queue: func(q *routing.Queue) { q.Exclusive = false }}},
	{"nothing is deleted by itself", []string{"auto-delete"}, faulty{queue: func(q *routing.Queue) { q.AutoDelete = false }}},
	{"no queue expires", []string{"queue expiry"}, faulty{queue: func(q *routing.Queue) { q.Expires = 0 }}},
	{"ignores MaxAttempts", []string{"attempts"}, faulty{queue: func(q *routing.Queue) { q.MaxAttempts = 0 }}},
	{"counts no attempts", []string{"attempts"}, faulty{arrived: func(d *Delivered) { d.Attempt = 1 }}},
	{"ignores a delay", []string{"delay"}, faulty{message: func(m *polymq.Message) { m.Delay = 0 }}},
}

// TestCatches plays scripts on mem with each fault: the oracle must see it in
// a script that mem itself plays as it should. Some such scripts are made
// smaller and printed as those that make oracle finds, and must compile.
func TestCatches(t *testing.T) {
	const tries = 25
	var caught, next atomic.Int64
	var mu sync.Mutex
	var printed []string
	var wg sync.WaitGroup
	for _, w := range openWorkers(t, workers, []string{"amqp", "mem"}) {
		wg.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(faults) {
					return
				}
				fault := faults[n]
				f := fault.f
				f.client = w.libs["mem"]
				how := ""
				for seed := range uint64(tries) {
					s, _ := Generate(1000*uint64(n)+seed, Options{Themes: fault.themes, Version: w.raw.version}, nil)
					d, err := w.playFaulty(t.Context(), s, &f)
					if err != nil {
						t.Errorf("%s: %v", fault.name, err)
						return
					}
					if d == nil {
						continue
					}
					how = fmt.Sprintf("script %d: %v", seed, d)
					if n%16 == 0 {
						small := shrink(s, time.Now().Add(shrinking/4), func(try Script) bool {
							d, err := w.playFaulty(t.Context(), try, &f)
							return d != nil && err == nil
						})
						mu.Lock()
						printed = append(printed, goTest(fmt.Sprintf("Fault%d", n), "mem", small))
						mu.Unlock()
					}
					break
				}
				if how == "" {
					t.Errorf("the oracle does not see that a driver %s", fault.name)
					continue
				}
				caught.Add(1)
				t.Logf("%s: %s", fault.name, how)
			}
		})
	}
	wg.Wait()
	t.Logf("caught %d of %d", caught.Load(), len(faults))
	vet(t, printed)
	t.Logf("made smaller and printed:\n%s", strings.Join(printed, "\n"))
}

// playFaulty plays a script on mem and then on a faulty client, and returns
// what the fault shows; nil where mem itself differs.
func (w *worker) playFaulty(ctx context.Context, s Script, f *faulty) (*Difference, error) {
	named := renamed(s, fmt.Sprintf("%s%d.", session, runs.Add(1)))
	record, err := w.lead(ctx, named, usual)
	if w.revive() != nil {
		return nil, nil // RabbitMQ was too busy for this one
	}
	if err != nil {
		return nil, err
	}
	honest := pace{usual.quiet, 3 * time.Second}
	if d, err := w.follow(ctx, "mem", w.libs["mem"], named, record, honest, nil); d != nil || err != nil {
		return nil, err
	}
	d, err := w.follow(ctx, "mem", f, named, record, pace{usual.quiet, time.Second}, nil)
	return d, errors.Join(err, w.libs["mem"].forget(ctx))
}

// TestBroken: what RabbitMQ answers no more, since a connection is gone, is
// nothing that others are compared with.
func TestBroken(t *testing.T) {
	w := openWorkers(t, 1, []string{"amqp", "mem"})[0]
	s := Script{Ops: []Op{
		Declare{On: 1, Topology: routing.Topology{Queues: []routing.Queue{{Name: "q1"}}}},
		Publish{On: 1, Messages: []polymq.Message{{ID: "m1", Key: "q1"}}},
		Inspect{Queue: "q1"},
	}}
	for i, cut := range []func() error{
		w.raw.conns[1].conn.Close,
		w.libs["amqp"].peek.conns[0].conn.Close,
	} {
		if err := cut(); err != nil {
			t.Fatal(err)
		}
		tally := newTally()
		if record, found, err := w.check(t.Context(), s, []string{"amqp", "mem"}, usual, tally); err != nil || len(found) > 0 || tally.of(broken) != 1 || record[2].Info.Ready != 1 {
			t.Errorf("%d: %+v, %v, %v, played again %d times", i, record, found, err, tally.of(broken))
		}
	}
}

// TestLateIsRight: what happens by itself may be slower than the pause that is
// made for it.
func TestLateIsRight(t *testing.T) {
	w := openWorkers(t, 1, []string{"amqp", "mem"})[0]
	s := renamed(Script{Ops: []Op{
		Declare{Topology: routing.Topology{Queues: []routing.Queue{{Name: "q1"}, {Name: "q2", TTL: 60 * time.Millisecond, DeadLetterExchange: "amq.default", DeadLetterKey: "q1"}}}},
		Publish{Messages: []polymq.Message{{ID: "m1", Key: "q2"}}},
		Publish{Messages: []polymq.Message{{ID: "m2", Key: "q1"}}},
		Subscribe{By: "c1", Queue: "q1", Prefetch: whole},
		Receive{By: "c1"},
	}}, session+"late.")
	record, err := w.lead(t.Context(), s, patient)
	if err != nil {
		t.Fatal(err)
	}
	late := &faulty{client: w.libs["mem"], queue: func(q *routing.Queue) { q.TTL *= 10 }}
	if d, err := w.follow(t.Context(), "mem", late, s, record, patient, nil); d != nil || err != nil {
		t.Error(d, err)
	}
}

// TestLeftOver: what a script left to be delivered late is not another's.
func TestLeftOver(t *testing.T) {
	w := openWorkers(t, 1, []string{"amqp", "mem"})[0]
	amqp := w.libs["amqp"]
	for _, err := range amqp.publish(t.Context(), 0, "", false, []polymq.Message{{ID: "left", Key: "nowhere", Delay: 50 * time.Millisecond}}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for n := 0; n == 0; {
		info, err := amqp.inspect(t.Context(), 0, unroutable)
		if err != nil && !errors.Is(err, polymq.ErrNotFound) {
			t.Fatal(err)
		}
		n = info.Ready
	}
	record, found, err := w.play(t.Context(), Script{Driver: true, Ops: []Op{
		Publish{Messages: []polymq.Message{{ID: "m1", Key: "nobody", Delay: 60 * time.Millisecond}}},
		Subscribe{By: "c1", Queue: unroutable, Prefetch: whole},
		Receive{By: "c1"},
		Settle{By: "c1", All: true, Outcome: Ack},
	}}, []string{"mem"}, patient, newTally())
	if err != nil || len(found) > 0 || len(record[2].Delivered) != 1 {
		t.Errorf("%v, %v: %+v", found, err, record)
	}
}
