package polymq_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
)

var died = time.Unix(1_700_000_000, 0).UTC()

// dead delivers a message that died in a queue.
func (f *fake) dead(id, queue string, keys ...any) {
	death := map[string]any{"queue": queue, "reason": "rejected", "count": int64(2), "exchange": "orders", "routing-keys": keys, "time": died, "original-expiration": "1500"}
	f.queue <- &driver.Delivery{Queue: "dlq", Exchange: "dlx", Message: driver.Message{
		ID: id, Key: "dead", Header: driver.Header{"x-death": []any{death}, "own": "1"},
	}}
}

func TestDeaths(t *testing.T) {
	f := newFake()
	s := subscriber(t, f, nil)
	f.dead("1", "work", "k", "copy")
	d, err := s.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []polymq.Death{{Queue: "work", Reason: "rejected", Count: 2, Time: died, Exchange: "orders", Keys: []string{"k", "copy"}, TTL: 1500 * time.Millisecond}}
	if got := d.Deaths(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for _, header := range []any{nil, "text", []any{}, []any{"text", map[string]any{}, map[string]any{"queue": 1, "reason": nil}}} {
		d := &polymq.Delivery{Message: &polymq.Message{Header: polymq.Header{"x-death": header}}}
		if got := d.Deaths(); got != nil {
			t.Errorf("%v: got %+v", header, got)
		}
	}
}

// redriven collects what a redrive publishes, and answers by ID.
func (f *fake) redriven(answers map[string]error) func() []string {
	var got []string
	f.publish = func(_ context.Context, batch []*driver.Publishing, _ bool) {
		for _, p := range batch {
			f.mu.Lock()
			got = append(got, fmt.Sprint(p.ID, " ", p.Message.Key, " ", p.Message.Header["CC"], " ", p.Message.Header["own"], " ", p.Dedup != ""))
			f.mu.Unlock()
			p.Resolve(answers[p.ID])
		}
	}
	return func() []string {
		f.mu.Lock()
		defer f.mu.Unlock()
		return slices.Clone(got)
	}
}

func TestRedrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		got := f.redriven(map[string]error{"full": driver.ErrRejected})
		f.dead("1", "work", "k", "copy")
		f.dead("2", "work", "k2")
		f.deliver("lives")
		f.dead("full", "work", "k")
		f.dead("other", "else")
		f.dead("1", "work", "k") // it died once more
		n, err := connect(t, f).Redrive(t.Context(), "dlq", nil)
		wantIs(t, err, polymq.ErrRejected)
		if n != 3 {
			t.Errorf("moved %d", n)
		}
		want := []string{"1 k [copy] 1 true", "2 k2 <nil> 1 true", "full k <nil> 1 true", "other dead <nil> 1 true"}
		sent := got()
		slices.Sort(sent)
		if !slices.Equal(sent, want) {
			t.Errorf("published %q", sent)
		}
		if f.count("publisher to work from orders") != 1 || f.count("publisher to else from orders") != 1 {
			t.Errorf("asked the driver: %q", f.calls)
		}
		var acked []string
		for _, st := range f.settlements() {
			if st.Outcome != driver.Ack {
				t.Errorf("%+v", st)
			}
			acked = append(acked, st.ID)
		}
		if slices.Sort(acked); !slices.Equal(acked, []string{"1", "2", "other"}) {
			t.Errorf("took away %v", acked)
		}
	})
}

func TestRedriveSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.redriven(nil)
		for i := range 10 {
			f.dead(fmt.Sprint(i), "work", "k")
		}
		c := connect(t, f)
		n, err := c.Redrive(t.Context(), "dlq", &polymq.RedriveOptions{Max: 4})
		if n != 4 || err != nil {
			t.Fatal(n, err)
		}
		n, err = c.Redrive(t.Context(), "dlq", &polymq.RedriveOptions{Filter: func(d *polymq.Delivery) bool { return d.ID > "7" }})
		if n != 2 || err != nil {
			t.Fatal(n, err)
		}
		for _, opts := range []polymq.RedriveOptions{{Max: -1}, {Idle: -1}} {
			_, err = c.Redrive(t.Context(), "dlq", &opts)
			wantIs(t, err, polymq.ErrInvalid)
		}
	})
}

// What was not confirmed when ctx ended is not taken away.
func TestRedriveBrokenOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.publish = f.hold
		f.dead("1", "work", "k")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		n, err := connect(t, f).Redrive(ctx, "dlq", nil)
		wantIs(t, err, context.DeadlineExceeded)
		if n != 0 || len(f.settlements()) > 0 {
			t.Errorf("moved %d, settled %v", n, f.settlements())
		}
		for _, p := range f.held() {
			wantIs(t, p.Err(), polymq.ErrUnconfirmed)
		}
	})
}

// What other clients publish to a RabbitMQ may have no ID: each of them is moved, and
// has one from then on, by which it is known when it dies once more.
func TestRedriveWithoutIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		sent := map[string]int{}
		f.publish = func(_ context.Context, batch []*driver.Publishing, _ bool) {
			for _, p := range batch {
				if sent[p.ID]++; p.ID == "" || p.Dedup != "" {
					t.Errorf("published with the ID %q and %q to deduplicate by", p.ID, p.Dedup)
				}
				f.dead(p.ID, "work", "k")
				p.Resolve(nil)
			}
		}
		for range 5 {
			f.dead("", "work", "k")
		}
		n, err := connect(t, f).Redrive(t.Context(), "dlq", &polymq.RedriveOptions{Max: 20})
		if n != 5 || err != nil || len(sent) != 5 {
			t.Errorf("moved %d of 5 under %d IDs: %v", n, len(sent), err)
		}
	})
}
