package rabbitmq

import (
	"encoding/json"
	"time"

	"github.com/polymq/polymq/routing"
)

// A Row is a queue as the management API and definitions show it.
type Row struct {
	Name       string
	Type       string // "" is classic
	Durable    bool
	Exclusive  bool
	AutoDelete bool
	Arguments  map[string]any // as encoding/json reads them with UseNumber
}

// Queue is the queue as it would be declared: Type and the arguments that
// Declare sets by itself are left out where they are what it would set. An
// argument whose value no field can have stays an argument.
func (r Row) Queue() routing.Queue {
	// RabbitMQ makes no difference between exclusive queues here.
	q := routing.Queue{Name: r.Name, Transient: !r.Durable && !r.Exclusive, Exclusive: r.Exclusive, AutoDelete: r.AutoDelete, MaxAttempts: r.MaxAttempts()}
	overflow, _ := r.Arguments[ArgOverflow].(string)
	safe := false
	if dlx, ok := r.Arguments[ArgDeadLetterExchange].(string); ok {
		q.DeadLetterExchange = FieldName(dlx)
		q.DeadLetterKey, _ = r.Arguments[ArgDeadLetterKey].(string)
		safe = r.Arguments[ArgDeadLetterStrategy] == AtLeastOnce && overflow == RejectPublish
		q.BestEffortDeadLetter = !safe
	}
	for name, v := range r.Arguments {
		v = Value(v)
		switch name {
		case ArgQueueType, ArgDeadLetterExchange, ArgDeadLetterKey, ArgDeadLetterStrategy, ArgDeliveryLimit, ArgOverflow:
			continue
		}
		if setField(&q, name, v) {
			continue
		}
		if q.Args == nil {
			q.Args = map[string]any{}
		}
		q.Args[name] = v
	}
	if !safe || q.MaxLength > 0 || q.MaxBytes > 0 {
		q.Overflow = routing.Overflow(overflow)
	}
	if kind := r.Kind(); kind != q.DefaultType() {
		q.Type = kind
	}
	return q
}

// Kind is the queue's type.
func (r Row) Kind() string {
	if t, ok := r.Arguments[ArgQueueType].(string); ok {
		return t
	}
	if r.Type != "" {
		return r.Type
	}
	return routing.Classic
}

// MaxAttempts is the delivery limit as the field has it; 0 is none.
func (r Row) MaxAttempts() int {
	if n, ok := Value(r.Arguments[ArgDeliveryLimit]).(int64); ok && n >= 0 {
		return int(n) + 1
	}
	return 0
}

// setField sets the field of q that stands for an argument; false where there
// is none, or none that can have this value.
func setField(q *routing.Queue, arg string, v any) bool {
	if arg == ArgSingleActive {
		q.SingleActiveConsumer, _ = v.(bool)
		return q.SingleActiveConsumer
	}
	n, ok := v.(int64)
	if !ok || n <= 0 {
		return false
	}
	switch arg {
	case ArgTTL:
		q.TTL = time.Duration(n) * time.Millisecond
	case ArgExpires:
		q.Expires = time.Duration(n) * time.Millisecond
	case ArgMaxLength:
		q.MaxLength = int(n)
	case ArgMaxBytes:
		q.MaxBytes = n
	case ArgMaxPriority:
		if n > 9 {
			return false
		}
		q.MaxPriority = int(n)
	default:
		return false
	}
	return true
}

// Value makes of JSON's numbers the integers and floats that they were.
func Value(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = Value(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = Value(v[k])
		}
	}
	return v
}

// Arguments are the arguments that q's fields stand for, when it has this
// type. forever says that the broker takes a delivery limit of -1 as none,
// which it has to be told (from 4.0 on). Drop-head is the broker's default, and
// another declaration when it is said.
func Arguments(q routing.Queue, kind string, forever bool) map[string]any {
	args := map[string]any{ArgQueueType: kind}
	if kind == routing.Quorum {
		if q.MaxAttempts > 0 {
			// The broker gives up when its count of returns exceeds the limit.
			args[ArgDeliveryLimit] = int64(q.MaxAttempts - 1)
		} else if forever {
			args[ArgDeliveryLimit] = int64(-1)
		}
	}
	for _, f := range [...]struct {
		arg   string
		value int64
	}{
		{ArgTTL, q.TTL.Milliseconds()}, {ArgExpires, q.Expires.Milliseconds()},
		{ArgMaxLength, int64(q.MaxLength)}, {ArgMaxBytes, q.MaxBytes}, {ArgMaxPriority, int64(q.MaxPriority)},
	} {
		if f.value > 0 {
			args[f.arg] = f.value
		}
	}
	if q.Rejects() {
		args[ArgOverflow] = RejectPublish
	}
	if q.SingleActiveConsumer {
		args[ArgSingleActive] = true
	}
	if q.DeadLetterExchange == "" {
		return args
	}
	args[ArgDeadLetterExchange] = ExchangeName(q.DeadLetterExchange)
	if q.DeadLetterKey != "" {
		args[ArgDeadLetterKey] = q.DeadLetterKey
	}
	if !q.BestEffortDeadLetter {
		args[ArgDeadLetterStrategy], args[ArgOverflow] = AtLeastOnce, RejectPublish
	}
	return args
}
