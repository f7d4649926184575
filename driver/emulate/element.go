package emulate

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/polymq/polymq/routing"
)

// The formats of elements. A reader that meets a newer one refuses the
// namespace: it could only misroute by it, and must not write beside it. So an
// element has the oldest format that says all of it.
const (
	firstVersion  = 1
	queuesVersion = 2 // queues have TTL and all that stands behind it
)

var errNewer = fmt.Errorf("%w: the topology was written by a newer version of polymq: update this program", errors.ErrUnsupported)

// element is the JSON of an Element: exactly one of the three is set. Arguments
// are typed texts as in wire.go.
type element struct {
	V        int              `json:"v"`
	Exchange *exchangeElement `json:"exchange,omitempty"`
	Queue    *queueElement    `json:"queue,omitempty"`
	Binding  *bindingElement  `json:"binding,omitempty"`
}

type exchangeElement struct {
	Name      string       `json:"name"`
	Kind      routing.Kind `json:"kind"`
	Transient bool         `json:"transient,omitempty"`
	Alternate string       `json:"alternate,omitempty"`
	// Args are of kinds that are none of AMQP's own. Who does not know the kind
	// does not route by it, so they need no newer version.
	Args string `json:"args,omitempty"`
}

type queueElement struct {
	Name                 string `json:"name"`
	Incarnation          string `json:"incarnation"`
	Type                 string `json:"type,omitempty"`
	Transient            bool   `json:"transient,omitempty"`
	DeadLetterExchange   string `json:"dead_letter_exchange,omitempty"`
	DeadLetterKey        string `json:"dead_letter_key,omitempty"`
	BestEffortDeadLetter bool   `json:"best_effort_dead_letter,omitempty"`
	MaxAttempts          int    `json:"max_attempts,omitempty"`
	Args                 string `json:"args,omitempty"`
	laterElement
}

// laterElement is what a queue of queuesVersion has more. Times are in
// milliseconds.
type laterElement struct {
	TTL                  int64            `json:"ttl,omitempty"`
	Expires              int64            `json:"expires,omitempty"`
	MaxLength            int              `json:"max_length,omitempty"`
	MaxBytes             int64            `json:"max_bytes,omitempty"`
	Overflow             routing.Overflow `json:"overflow,omitempty"`
	MaxPriority          int              `json:"max_priority,omitempty"`
	SingleActiveConsumer bool             `json:"single_active_consumer,omitempty"`
	AutoDelete           bool             `json:"auto_delete,omitempty"`
	Owner                string           `json:"owner,omitempty"`       // of an exclusive queue
	MessageTTL           bool             `json:"message_ttl,omitempty"` // some messages have a TTL of their own
}

type bindingElement struct {
	Exchange   string `json:"exchange"`
	Queue      string `json:"queue,omitempty"`
	ToExchange string `json:"to_exchange,omitempty"`
	Key        string `json:"key,omitempty"`
	Args       string `json:"args,omitempty"`
}

// elementName is short and of the allowed letters whatever the parts are.
func elementName(kind string, parts ...string) string {
	var text []byte
	for _, p := range parts {
		text = append(append(strconv.AppendInt(text, int64(len(p)), 10), ':'), p...)
	}
	sum := sha256.Sum256(text)
	return kind + "." + hex.EncodeToString(sum[:20])
}

func exchangeName(name string) string { return elementName("x", name) }
func queueName(name string) string    { return elementName("q", name) }

func encode(name string, e element) (Element, error) {
	e.V = firstVersion
	if e.Queue != nil && e.Queue.laterElement != (laterElement{}) {
		e.V = queuesVersion
	}
	data, err := json.Marshal(e)
	return Element{Name: name, Data: data}, err
}

func encodeExchange(x routing.Exchange) (Element, error) {
	args, err := encodeArgs(x.Args)
	if err != nil {
		return Element{}, fmt.Errorf("exchange %q: %w", x.Name, err)
	}
	return encode(exchangeName(x.Name), element{Exchange: &exchangeElement{x.Name, x.Kind, x.Transient, x.Alternate, args}})
}

func encodeQueue(q *Queue) (Element, error) {
	args, err := encodeArgs(q.Args)
	if err != nil {
		return Element{}, fmt.Errorf("queue %q: %w", q.Name, err)
	}
	return encode(queueName(q.Name), element{Queue: &queueElement{
		Name: q.Name, Incarnation: q.Incarnation, Type: q.Type, Transient: q.Transient,
		DeadLetterExchange: q.DeadLetterExchange, DeadLetterKey: q.DeadLetterKey,
		BestEffortDeadLetter: q.BestEffortDeadLetter, MaxAttempts: q.MaxAttempts, Args: args,
		laterElement: laterElement{
			TTL: q.TTL.Milliseconds(), Expires: q.Expires.Milliseconds(),
			MaxLength: q.MaxLength, MaxBytes: q.MaxBytes, Overflow: q.Overflow, MaxPriority: q.MaxPriority,
			SingleActiveConsumer: q.SingleActiveConsumer, AutoDelete: q.AutoDelete,
			Owner: q.owner, MessageTTL: q.expiring,
		},
	}})
}

// bindingName is the identity of the binding: all of its fields. The arguments
// are as its element has them.
func bindingName(b routing.Binding) (name, args string, err error) {
	if args, err = encodeArgs(b.Args); err != nil {
		return "", "", fmt.Errorf("binding of exchange %q: %w", b.Exchange, err)
	}
	return elementName("b", b.Exchange, b.Queue, b.ToExchange, b.Key, args), args, nil
}

func encodeBinding(b routing.Binding) (Element, error) {
	name, args, err := bindingName(b)
	if err != nil {
		return Element{}, err
	}
	return encode(name, element{Binding: &bindingElement{b.Exchange, b.Queue, b.ToExchange, b.Key, args}})
}

func (e *element) exchange() (routing.Exchange, error) {
	args, err := decodeArgs(e.Exchange.Args)
	return routing.Exchange{Name: e.Exchange.Name, Kind: e.Exchange.Kind, Transient: e.Exchange.Transient, Alternate: e.Exchange.Alternate, Args: args}, err
}

func (e *element) binding() (routing.Binding, error) {
	args, err := decodeArgs(e.Binding.Args)
	return routing.Binding{Exchange: e.Binding.Exchange, Queue: e.Binding.Queue, ToExchange: e.Binding.ToExchange, Key: e.Binding.Key, Args: args}, err
}

func (e *element) queue() (*Queue, error) {
	q := e.Queue
	if !q.sound() {
		return nil, fmt.Errorf("the stored topology cannot be read: queue %q has a field that no queue can have", q.Name)
	}
	args, err := decodeArgs(q.Args)
	return &Queue{Incarnation: q.Incarnation, owner: q.Owner, expiring: q.MessageTTL, Queue: routing.Queue{
		Name: q.Name, Type: q.Type, Transient: q.Transient,
		DeadLetterExchange: q.DeadLetterExchange, DeadLetterKey: q.DeadLetterKey,
		BestEffortDeadLetter: q.BestEffortDeadLetter, MaxAttempts: q.MaxAttempts, Args: args,
		TTL: time.Duration(q.TTL) * time.Millisecond, Expires: time.Duration(q.Expires) * time.Millisecond,
		MaxLength: q.MaxLength, MaxBytes: q.MaxBytes, Overflow: q.Overflow, MaxPriority: q.MaxPriority,
		SingleActiveConsumer: q.SingleActiveConsumer, Exclusive: q.Owner != "", AutoDelete: q.AutoDelete,
	}}, err
}

// sound reports whether a queue could have been declared so: stores make names of
// incarnations, and count with the rest.
func (q *queueElement) sound() bool {
	const most = int64(math.MaxInt64 / time.Millisecond)
	named := q.Incarnation != "" && !strings.ContainsFunc(q.Incarnation, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9')
	})
	return named && min(q.TTL, q.Expires, q.MaxBytes, int64(min(q.MaxLength, q.MaxPriority, q.MaxAttempts))) >= 0 &&
		max(q.TTL, q.Expires) <= most && q.MaxPriority <= math.MaxUint8
}

// decodeElement reads an element; errNewer when a newer version wrote it.
func decodeElement(data []byte) (*element, error) {
	var e element
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("the stored topology cannot be read: %w", err)
	}
	n := 0
	for _, there := range []bool{e.Exchange != nil, e.Queue != nil, e.Binding != nil} {
		if there {
			n++
		}
	}
	if e.V < firstVersion || e.V > queuesVersion || n != 1 {
		return nil, errNewer
	}
	return &e, nil
}

// encodeArgs is canonical: equal arguments have one text.
func encodeArgs(args map[string]any) (string, error) {
	if len(args) == 0 {
		return "", nil
	}
	v, err := normal(args)
	if err != nil {
		return "", err
	}
	return nestedText(v), nil
}

func decodeArgs(s string) (map[string]any, error) {
	if s == "" {
		return nil, nil
	}
	v, err := parseTyped("table:" + s)
	if err != nil {
		return nil, fmt.Errorf("the stored topology cannot be read: %w", err)
	}
	return v.(map[string]any), nil // parseTyped has seen to it
}

// normal brings an argument to the types that the wire form has.
func normal(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case nil, string, []byte, bool, int64, float64, time.Time:
		return v, nil
	case []any:
		list := make([]any, len(v))
		for i := range v {
			if list[i], err = normal(v[i]); err != nil {
				return nil, err
			}
		}
		return list, nil
	case map[string]any:
		table := make(map[string]any, len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if table[k], err = normal(v[k]); err != nil {
				return nil, fmt.Errorf("argument %q: %w", k, err)
			}
		}
		return table, nil
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32:
		return r.Int(), nil
	case reflect.Float32:
		return r.Float(), nil
	}
	return nil, fmt.Errorf("%w: a value of type %T", routing.ErrInvalid, v)
}

func compareBindings(a, b routing.Binding) int {
	if c := cmp.Or(strings.Compare(a.Exchange, b.Exchange), strings.Compare(a.Queue, b.Queue),
		strings.Compare(a.ToExchange, b.ToExchange), strings.Compare(a.Key, b.Key)); c != 0 {
		return c
	}
	x, _ := encodeArgs(a.Args)
	y, _ := encodeArgs(b.Args)
	return strings.Compare(x, y)
}
