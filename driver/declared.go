package driver

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/polymq/polymq/routing"
)

// Declared is what one connection has declared and not removed again: what it makes
// anew where the broker has lost it. Queues that end by themselves, or with their
// connection, are not in it. The zero value is empty and ready for use; it is safe
// for concurrent use.
type Declared struct {
	mu        sync.Mutex
	exchanges map[string]routing.Exchange
	queues    map[string]routing.Queue
	bindings  map[identity]routing.Binding
	passing   map[string]bool // queues that were declared and are left out
	restored  time.Time
}

// Restored is what a driver.Conn also implements that makes anew what it has
// declared.
type Restored interface {
	// Restores is whether a queue that is gone is expected back: this connection
	// has declared it, and was lost a moment ago.
	Restores(queue string) bool
}

// restoring is for how long after a connection came back its queues are expected
// back as well.
const restoring = 30 * time.Second

// Add takes in what was declared or bound. What can only be another than before, since
// no broker takes the one for the other, has none of the bindings that were there.
func (d *Declared) Add(t routing.Topology) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.queues == nil {
		d.exchanges, d.queues = map[string]routing.Exchange{}, map[string]routing.Queue{}
		d.bindings, d.passing = map[identity]routing.Binding{}, map[string]bool{}
	}
	for _, x := range t.Exchanges {
		if _, always := routing.Predeclared(x.Name); !always {
			if was, ok := d.exchanges[x.Name]; ok && (was.Kind != x.Kind || was.Transient != x.Transient || was.Alternate != x.Alternate) {
				d.unbindExchange(x.Name)
			}
			x.Args = own(x.Args)
			d.exchanges[x.Name] = x
		}
	}
	for _, q := range t.Queues {
		if q.Exclusive || q.AutoDelete || q.Expires > 0 {
			if !d.passing[q.Name] {
				d.unbindQueue(q.Name)
			}
			d.passing[q.Name] = true
			delete(d.queues, q.Name)
		} else {
			if was, ok := d.queues[q.Name]; ok && another(was, q) {
				d.unbindQueue(q.Name)
			}
			q.Args = own(q.Args)
			d.queues[q.Name] = q
			delete(d.passing, q.Name)
		}
	}
	for _, b := range t.Bindings {
		if !d.passing[b.Queue] {
			b.Args = own(b.Args)
			d.bindings[identityOf(b)] = b
		}
	}
}

// another is whether q cannot be the queue that was declared before. Brokers do not
// compare the other fields alike.
func another(was, q routing.Queue) bool {
	return slices.ContainsFunc(was.Differences(q), func(d routing.Difference) bool {
		switch d.Field {
		case "Transient", "DeadLetterExchange", "DeadLetterKey", "TTL", "MaxLength", "MaxBytes", "Overflow", "MaxPriority":
			return true
		}
		return false
	})
}

// Unbind takes out bindings that were removed.
func (d *Declared) Unbind(bs []routing.Binding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range bs {
		delete(d.bindings, identityOf(b))
	}
}

// DeleteQueue takes out a queue that was deleted, with its bindings.
func (d *Declared) DeleteQueue(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.queues, name)
	delete(d.passing, name)
	d.unbindQueue(name)
}

// DeleteExchange takes out an exchange that was deleted, with its bindings.
func (d *Declared) DeleteExchange(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.exchanges, name)
	d.unbindExchange(name)
}

// unbindQueue takes out the bindings of a queue; the caller holds mu.
func (d *Declared) unbindQueue(name string) {
	maps.DeleteFunc(d.bindings, func(_ identity, b routing.Binding) bool { return b.Queue == name })
}

// unbindExchange takes out the bindings from and to an exchange; the caller holds mu.
func (d *Declared) unbindExchange(name string) {
	maps.DeleteFunc(d.bindings, func(_ identity, b routing.Binding) bool { return b.Exchange == name || b.ToExchange == name })
}

// Topology is all of it, in the order of the names.
func (d *Declared) Topology() (t routing.Topology) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(d.exchanges)) {
		t.Exchanges = append(t.Exchanges, d.exchanges[name])
	}
	for _, name := range slices.Sorted(maps.Keys(d.queues)) {
		t.Queues = append(t.Queues, d.queues[name])
	}
	for _, key := range slices.SortedFunc(maps.Keys(d.bindings), identity.compare) {
		t.Bindings = append(t.Bindings, d.bindings[key])
	}
	return t
}

// Empty is whether there is nothing to make anew.
func (d *Declared) Empty() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.exchanges)+len(d.queues)+len(d.bindings) == 0
}

// Back notes that the connection has just come back.
func (d *Declared) Back() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.restored = time.Now()
}

// Restores is that of Restored.
func (d *Declared) Restores(queue string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, there := d.queues[queue]
	return there && !d.restored.IsZero() && time.Since(d.restored) < restoring
}

// identity is the same for bindings that are: arguments that were an int come back
// from Topology as an int64.
type identity struct{ exchange, queue, toExchange, key, args string }

func identityOf(b routing.Binding) identity {
	id := identity{b.Exchange, b.Queue, b.ToExchange, b.Key, ""}
	if len(b.Args) > 0 {
		data, err := b.MarshalJSON()
		if err != nil { // a text that is not UTF-8
			data = fmt.Appendf(nil, "%#v", b.Args)
		}
		id.args = string(data)
	}
	return id
}

func (a identity) compare(b identity) int {
	return cmp.Or(strings.Compare(a.exchange, b.exchange), strings.Compare(a.queue, b.queue),
		strings.Compare(a.toExchange, b.toExchange), strings.Compare(a.key, b.key), strings.Compare(a.args, b.args))
}

// own is a copy of arguments, which are the caller's to change.
func own(args map[string]any) map[string]any {
	if len(args) == 0 {
		return nil
	}
	var copied routing.Binding
	data, err := routing.Binding{Args: args}.MarshalJSON()
	if err == nil {
		err = copied.UnmarshalJSON(data)
	}
	if err != nil {
		return maps.Clone(args)
	}
	return copied.Args
}
