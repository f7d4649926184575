package routing

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"unsafe"
)

// Route appends to dst the names of the queues that take a message published
// to exchange with key and header, each once, in no order; nothing where the
// message is unroutable. What dst held before stays, and is not compared with.
//
// props are the properties that registered kinds can route by; leave them out
// where there are none, and give them once.
//
// The exchange "" is the default exchange: the key names the queue. The headers
// CC and BCC, lists of strings, are further keys. It returns an error, and dst
// as it was, that wraps
//
//	ErrNoExchange          the exchange is not in the table
//	errors.ErrUnsupported  the message came to an exchange whose kind this process does not know
//	ErrInvalid             CC or BCC is not a list of strings
//
// It does not allocate while dst has room and the message goes to few queues.
func (t *Table) Route(dst []string, exchange, key string, header map[string]any, props ...Properties) ([]string, error) {
	w := walks.Get().(*walk)
	defer w.release()
	w.table, w.header, w.out, w.base = t, header, dst, len(dst)
	if len(props) > 0 {
		w.props = props[0]
	}
	w.keys = append(w.keys, key)
	if len(header) > 0 {
		for _, name := range [...]string{"CC", "BCC"} {
			if err := w.addKeys(name); err != nil {
				return dst, err
			}
		}
	}
	if exchange == "" {
		w.defaultExchange()
	} else {
		x := t.exchange(exchange)
		if x == nil {
			return dst, fmt.Errorf("%w: %q", ErrNoExchange, exchange)
		}
		if err := w.from(x); err != nil {
			return dst, err
		}
	}
	return w.out, nil
}

// A walk is one message on its way through a table.
type walk struct {
	table   *Table
	header  map[string]any
	keys    []string
	words   []word   // of the key being matched
	tokens  []uint32 // the numbers of its words in the flat being matched
	todo    []*place // exchanges seen, in the order of the walk
	out     []string // names of the queues found, from base on
	base    int
	set     []string // the names again, hashed, once they are many
	taken   bool     // the exchange being matched has matched something
	unknown bool     // it is of an unknown kind
	props   Properties
	message Message // what a registered kind looks at
	hits    []int   // the bindings that it found
}

var walks = sync.Pool{New: func() any { return new(walk) }}

// What a walk keeps at most for the next one.
const keepNames = 1 << 14

func (w *walk) release() {
	if cap(w.set) > keepNames {
		w.set = nil
	}
	// The lists keep strings and places, which are small, until the next walk.
	w.table, w.header, w.out = nil, nil, nil
	w.props = Properties{}
	if w.message.Keys != nil {
		w.message = Message{}
	}
	w.keys, w.todo, w.set = w.keys[:0], w.todo[:0], w.set[:0]
	walks.Put(w)
}

func (w *walk) addKeys(name string) error {
	v, ok := w.header[name]
	if !ok {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		return fmt.Errorf("header %s: %w: type %T: want a list of strings", name, ErrInvalid, v)
	}
	for _, e := range list {
		key, ok := e.(string)
		if !ok {
			return fmt.Errorf("header %s: %w: it holds a %T: want a list of strings", name, ErrInvalid, e)
		}
		w.keys = append(w.keys, key)
	}
	return nil
}

// from walks breadth-first, each exchange once, so that cycles are harmless.
func (w *walk) from(x *exchange) error {
	w.todo = append(w.todo, x.at)
	for i := 0; i < len(w.todo); i++ {
		if i > 0 {
			x = w.table.exchange(w.todo[i].name)
		}
		w.taken, w.unknown = false, false
		x.out.match(w)
		if w.unknown {
			return fmt.Errorf("exchange %q has kind %q, which this process does not know: %w", x.decl.Name, x.decl.Kind, errors.ErrUnsupported)
		}
		if w.taken || x.decl.Alternate == "" {
			continue
		}
		if x.decl.Alternate == DefaultExchange {
			w.defaultExchange()
		} else if alternate := w.table.exchange(x.decl.Alternate); alternate != nil {
			w.visit(alternate.at)
		}
	}
	return nil
}

func (w *walk) defaultExchange() {
	for _, key := range w.keys {
		if q := w.table.queue(key); q != nil {
			w.add(q.at.name)
		}
	}
}

// take follows a binding that matched.
func (w *walk) take(b *binding) {
	w.takePlace(b.to)
}

func (w *walk) takePlace(p *place) {
	w.taken = true
	if p.exchange {
		w.visit(p)
	} else {
		w.add(p.name)
	}
}

func (w *walk) takeGroup(g group) {
	switch g := g.(type) {
	case *binding:
		w.take(g)
	case *[2]*binding:
		w.take(g[0])
		w.take(g[1])
	case *hamt:
		for _, s := range g.slots {
			w.takeGroup(s)
		}
	case *clash:
		for _, leaf := range g.leaves {
			w.take(leaf.(*binding))
		}
	default:
		for _, b := range few(g) {
			if b == nil {
				break
			}
			w.take(b)
		}
	}
}

func (w *walk) visit(p *place) {
	if !slices.Contains(w.todo, p) {
		w.todo = append(w.todo, p)
	}
}

// While queues are few, looking through them is faster than hashing.
const fewQueues = 16

// add appends the name of a queue that was not found before.
func (w *walk) add(name string) {
	found := w.out[w.base:]
	if len(found) < fewQueues {
		for i := range found {
			if identical(found[i], name) {
				return
			}
		}
		w.out = append(w.out, name)
		return
	}
	if 2*len(found) >= len(w.set) {
		w.grow()
	}
	if w.mark(name) {
		w.out = append(w.out, name)
	}
}

// identical compares names of queues without reading them: in one table, a
// queue's name is one and the same string.
func identical(a, b string) bool {
	return unsafe.StringData(a) == unsafe.StringData(b) && len(a) == len(b)
}

// grow makes the set at least four times as large as what was found.
func (w *walk) grow() {
	found := w.out[w.base:]
	n := 64
	for n < 4*len(found) {
		n *= 2
	}
	w.set = slices.Grow(w.set[:0], n)[:n]
	clear(w.set)
	for _, name := range found {
		w.mark(name)
	}
}

// mark puts a name into the set and reports whether it was not there.
func (w *walk) mark(name string) bool {
	mask := len(w.set) - 1
	at := uint64(uintptr(unsafe.Pointer(unsafe.StringData(name)))) * 0x9e3779b97f4a7c15
	for i := int(at>>32) & mask; ; i = (i + 1) & mask {
		switch {
		case w.set[i] == "":
			w.set[i] = name
			return true
		case identical(w.set[i], name):
			return false
		}
	}
}
