package emulate

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// TestQueueElements: what a queue is, is read as it was written, and a version
// is as low as the fields allow: every field but those of version 1 needs 2.
func TestQueueElements(t *testing.T) {
	first := routing.Queue{
		Name: "q", Type: "t", Transient: true, DeadLetterExchange: "x", DeadLetterKey: "k", BestEffortDeadLetter: true, MaxAttempts: 3,
		Args: map[string]any{"n": int64(1)},
	}
	check := func(q *Queue, version int) {
		t.Helper()
		e, err := encodeQueue(q)
		if err != nil {
			t.Fatal(err)
		}
		var v struct{ V int }
		if err := json.Unmarshal(e.Data, &v); err != nil || v.V != version {
			t.Errorf("%s has version %d, want %d", e.Data, v.V, version)
		}
		el, err := decodeElement(e.Data)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := el.queue(); err != nil || !reflect.DeepEqual(got, q) {
			t.Errorf("%s is read as %+v, %v, want %+v", e.Data, got, err, q)
		}
	}
	check(&Queue{Queue: first, Incarnation: "i"}, 1)
	for _, later := range []routing.Queue{
		{TTL: 1500 * time.Millisecond}, {Expires: time.Hour}, {MaxLength: 1}, {MaxBytes: 1 << 40}, {Overflow: routing.RejectPublish},
		{MaxPriority: 9}, {SingleActiveConsumer: true}, {AutoDelete: true},
	} {
		later.Name = "q"
		check(&Queue{Queue: later, Incarnation: "i"}, 2)
	}
	check(&Queue{Queue: routing.Queue{Name: "q", Exclusive: true}, Incarnation: "i", owner: "me"}, 2)
	check(&Queue{Queue: routing.Queue{Name: "q"}, Incarnation: "i", expiring: true}, 2)
	if n := reflect.TypeFor[routing.Queue]().NumField(); n != 17 {
		t.Errorf("a queue has %d fields, this test knows 17", n)
	}
}

func TestElementsOfAnotherVersion(t *testing.T) {
	for _, data := range []string{`{"v":3,"queue":{"name":"q"}}`, `{"v":0,"queue":{"name":"q"}}`, `{"v":2}`, `{"v":2,"stream":{}}`} {
		if _, err := decodeElement([]byte(data)); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", data, err)
		}
	}
}

// TestFeatures: what the emulation adds to a store that declares nothing, and
// what a store may refuse.
func TestFeatures(t *testing.T) {
	f := features(driver.Features{})
	for _, name := range driver.AllFeatures {
		if !f.Has(name) {
			t.Errorf("%s is %q", name, f.Support[name])
		}
	}
	if f.DelayPrecision != 10*time.Millisecond {
		t.Errorf("the precision is %v", f.DelayPrecision)
	}
	f = features(driver.Features{DelayPrecision: time.Second, Support: map[driver.Feature]driver.Support{
		driver.Priority: driver.Refused, driver.MaxLength: driver.Refused, driver.SingleActive: driver.Refused, driver.TTL: driver.Refused,
	}})
	if f.Has(driver.Priority) || !f.Has(driver.TTL) || f.DelayPrecision != time.Second {
		t.Errorf("they are %+v", f)
	}
	c := &conn{features: f, cfg: Config{CheckQueue: plainQueue}}
	for _, q := range []routing.Queue{{MaxLength: 1}, {MaxBytes: 1}, {MaxPriority: 1}, {SingleActiveConsumer: true}} {
		if err := c.Check(routing.Topology{Queues: []routing.Queue{q}}); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if err := c.Check(routing.Topology{Queues: []routing.Queue{{TTL: 1, Expires: 1, Exclusive: true, AutoDelete: true}}}); err != nil {
		t.Error(err)
	}
	if err := c.Check(routing.Topology{Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic, Args: map[string]any{"x-odd": 1}}}}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("an exchange with an argument: %v", err)
	}
}
