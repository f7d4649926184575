package routing

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Rule is how exchanges of a kind route that is none of AMQP's own. Its
// methods must be safe for concurrent use.
//
// Whatever process publishes routes by it, so it must be the same in all of
// them, for ever: a Rule that is to route differently gets another Kind.
type Rule interface {
	// CheckExchange reports what is wrong with the arguments of an exchange.
	CheckExchange(x Exchange) error
	// CheckBinding reports what is wrong with the key or arguments of a
	// binding that leads from an exchange of this kind.
	CheckBinding(b Binding) error
	// Compile makes the matcher of one exchange, whose bindings are all
	// legal and always in the same order. It is called when a message comes
	// after the bindings have changed.
	Compile(x Exchange, bs []Binding) Matcher
}

// A Matcher says which bindings of one exchange take a message. It must be safe
// for concurrent use.
type Matcher interface {
	// Match appends to dst the indexes, in what Compile was given, of the
	// bindings that take m, and changes neither m nor what it holds. It should
	// not allocate.
	Match(dst []int, m *Message) []int
}

// A Message is what of a message can be routed by.
type Message struct {
	Keys   []string       // the routing key, and those of CC and BCC
	Header map[string]any // may be nil
	Properties
}

// Properties are what registered kinds can route by beside keys and headers.
type Properties struct {
	ID            string    // "" where the publisher gave none
	CorrelationID string    // likewise
	Time          time.Time // zero where there is none
}

var (
	rulesMu sync.RWMutex
	rules   = map[Kind]Rule{ConsistentHash: consistentHash{}}
)

// RegisterKind makes a kind of exchanges known to this process; programs call
// it from an init function. A table that meets a kind which nobody has
// registered fails the publish with errors.ErrUnsupported: it does not misroute.
// RabbitMQ routes by itself, and must have a plugin with a type of this name.
//
// It panics when r is nil or the kind is known already.
func RegisterKind(kind Kind, r Rule) {
	rulesMu.Lock()
	defer rulesMu.Unlock()
	if r == nil {
		panic("routing: RegisterKind: the rule is nil")
	}
	if _, taken := rules[kind]; taken || !kind.Custom() || kind == "" {
		panic("routing: RegisterKind: the kind " + string(kind) + " is known already")
	}
	rules[kind] = r
}

// Custom reports that k is none of AMQP's own kinds.
func (k Kind) Custom() bool { return k != Direct && k != Fanout && k != Topic && k != Headers }

// ruleOf is the rule of a kind; nil for AMQP's own and for those that nobody
// has registered.
func ruleOf(kind Kind) Rule {
	if !kind.Custom() {
		return nil
	}
	rulesMu.RLock()
	defer rulesMu.RUnlock()
	return rules[kind]
}

// Kinds are the kinds that this process knows.
func Kinds() []Kind {
	rulesMu.RLock()
	defer rulesMu.RUnlock()
	return append([]Kind{Direct, Fanout, Topic, Headers}, slices.Sorted(maps.Keys(rules))...)
}

func kindList() string {
	var names []string
	for _, k := range Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// ruleIndex is all bindings, and the matcher that a registered rule makes of
// them when the first message comes.
type ruleIndex struct {
	rule Rule
	decl *Exchange
	all  group
	made *compiled
}

type compiled struct {
	once    sync.Once
	places  []*place
	matcher Matcher
}

func (x ruleIndex) of(all group) index { return ruleIndex{x.rule, x.decl, all, new(compiled)} }

func (x ruleIndex) with(b *binding, own bool) index { return x.of(groupPut(x.all, b, own)) }
func (x ruleIndex) without(b *binding) index        { return x.of(groupDel(x.all, b)) }
func (x ruleIndex) sealed() index                   { return x }
func (x ruleIndex) each(f func(*binding))           { groupEach(x.all, f) }

func (x ruleIndex) compile() {
	var standing []*binding
	x.each(func(b *binding) { standing = append(standing, b) })
	data := make(map[*binding]Binding, len(standing))
	for _, b := range standing {
		data[b] = b.data()
	}
	slices.SortFunc(standing, func(a, b *binding) int { return compareBindings(data[a], data[b]) })
	bs := make([]Binding, len(standing))
	x.made.places = make([]*place, len(standing))
	for i, b := range standing {
		bs[i], x.made.places[i] = data[b], b.to
	}
	x.made.matcher = x.rule.Compile(*x.decl, bs)
}

func (x ruleIndex) match(w *walk) {
	x.made.once.Do(x.compile)
	w.message = Message{w.keys, w.header, w.props}
	w.hits = x.made.matcher.Match(w.hits[:0], &w.message)
	for _, i := range w.hits {
		w.takePlace(x.made.places[i])
	}
}

func unknownKind(x Exchange) error {
	return fmt.Errorf("exchange %q: Kind: %w: %q is not known: want one of %s, or register it (RegisterKind)", x.Name, ErrInvalid, x.Kind, kindList())
}
