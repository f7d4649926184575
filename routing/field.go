package routing

import (
	"cmp"
	"fmt"
	"strconv"
	"time"
)

// A field is one field of an exchange, queue or binding.
type field struct {
	name string // in Go, and in errors
	key  string // in files
	at   any    // the pointer to it
}

func (x *Exchange) fields() []field {
	return []field{
		{"Name", "name", &x.Name},
		{"Kind", "kind", (*string)(&x.Kind)},
		{"Transient", "transient", &x.Transient},
		{"Alternate", "alternate", &x.Alternate},
		{"Args", "args", &x.Args},
	}
}

func (q *Queue) fields() []field {
	return []field{
		{"Name", "name", &q.Name},
		{"Type", "type", &q.Type},
		{"Transient", "transient", &q.Transient},
		{"DeadLetterExchange", "dead_letter_exchange", &q.DeadLetterExchange},
		{"DeadLetterKey", "dead_letter_key", &q.DeadLetterKey},
		{"BestEffortDeadLetter", "best_effort_dead_letter", &q.BestEffortDeadLetter},
		{"MaxAttempts", "max_attempts", &q.MaxAttempts},
		{"TTL", "ttl", &q.TTL},
		{"Expires", "expires", &q.Expires},
		{"MaxLength", "max_length", &q.MaxLength},
		{"MaxBytes", "max_bytes", &q.MaxBytes},
		{"Overflow", "overflow", (*string)(&q.Overflow)},
		{"MaxPriority", "max_priority", &q.MaxPriority},
		{"SingleActiveConsumer", "single_active_consumer", &q.SingleActiveConsumer},
		{"Exclusive", "exclusive", &q.Exclusive},
		{"AutoDelete", "auto_delete", &q.AutoDelete},
		{"Args", "args", &q.Args},
	}
}

func (b *Binding) fields() []field {
	return []field{
		{"Exchange", "exchange", &b.Exchange},
		{"Queue", "queue", &b.Queue},
		{"ToExchange", "to_exchange", &b.ToExchange},
		{"Key", "key", &b.Key},
		{"Args", "args", &b.Args},
	}
}

// zero reports that the field is as in an element that does not say it.
func (f field) zero() bool {
	switch p := f.at.(type) {
	case *string:
		return *p == ""
	case *bool:
		return !*p
	case *int:
		return *p == 0
	case *int64:
		return *p == 0
	case *time.Duration:
		return *p == 0
	case *map[string]any:
		return len(*p) == 0
	}
	return false
}

func (f field) same(g field) bool {
	switch p := f.at.(type) {
	case *string:
		return *p == *g.at.(*string)
	case *bool:
		return *p == *g.at.(*bool)
	case *int:
		return *p == *g.at.(*int)
	case *int64:
		return *p == *g.at.(*int64)
	case *time.Duration:
		return *p == *g.at.(*time.Duration)
	case *map[string]any:
		return sameArgs(*p, *g.at.(*map[string]any))
	}
	return false
}

// text is the field's value for people.
func (f field) text() string {
	switch p := f.at.(type) {
	case *string:
		return strconv.Quote(*p)
	case *bool:
		return strconv.FormatBool(*p)
	case *int:
		return strconv.Itoa(*p)
	case *int64:
		return strconv.FormatInt(*p, 10)
	case *time.Duration:
		return p.String()
	case *map[string]any:
		if len(*p) == 0 {
			return "none"
		}
		data, err := appendValue(nil, *p, 0)
		if err != nil {
			return fmt.Sprint(*p)
		}
		return string(data)
	}
	return ""
}

// A Difference is a field in which what stands is not what is wanted.
type Difference struct {
	Field          string // its name, as MaxLength
	Stands, Wanted string // its values as text
}

// String is the difference as errors show it.
func (d Difference) String() string {
	return fmt.Sprintf("%s is %s, asked for %s", d.Field, d.Stands, d.Wanted)
}

func differences(stands, want []field) (out []Difference) {
	for i, f := range stands {
		if f.name != "Name" && !f.same(want[i]) {
			out = append(out, Difference{f.name, f.text(), want[i].text()})
		}
	}
	return out
}

// Differences is in what the declaration want differs from x, which stands;
// nil where it is the same one.
func (x Exchange) Differences(want Exchange) []Difference {
	return differences(x.fields(), want.fields())
}

// Differences is in what the declaration want differs from q, which stands;
// nil where it is the same one. A field that is left at its default is the same
// as one that says it; and exclusive queues, which end with their connection,
// are not told apart by Transient.
func (q Queue) Differences(want Queue) []Difference {
	if q.Type != "" || want.Type != "" {
		q.Type, want.Type = cmp.Or(q.Type, q.DefaultType()), cmp.Or(want.Type, want.DefaultType())
	}
	q.Overflow, want.Overflow = cmp.Or(q.Overflow, DropHead), cmp.Or(want.Overflow, DropHead)
	if q.Exclusive && want.Exclusive {
		q.Transient = want.Transient
	}
	return differences(q.fields(), want.fields())
}

// differs names the first field in which two declarations of one exchange
// differ; "" when they are the same.
func (x Exchange) differs(y Exchange) string { return first(x.Differences(y)) }

// differs is Exchange.differs for queues.
func (q Queue) differs(p Queue) string { return first(q.Differences(p)) }

func first(ds []Difference) string {
	if len(ds) == 0 {
		return ""
	}
	return ds[0].Field
}

// The types of queues that Queue.Type may name on every backend.
const (
	Quorum  = "quorum"  // replicated, where there is a cluster
	Classic = "classic" // on one node
)

// DefaultType is the type that a queue without one has on RabbitMQ.
func (q Queue) DefaultType() string {
	switch {
	case q.Transient, q.Exclusive, q.AutoDelete, q.MaxPriority > 0:
		return Classic
	case q.MaxAttempts > 0, q.DeadLetterExchange != "" && !q.BestEffortDeadLetter:
		return Quorum // nothing else does
	case q.Rejects():
		// When the broker restarts, a classic queue sets up its limit before it
		// learns that it is to refuse: what subscribers held, and is beyond the
		// limit now, it drops.
		return Quorum
	case q.Expires > 0, q.MaxBytes > 0:
		// A quorum queue is not used by being declared again, and from 4.3 on
		// counts more than the bodies of its messages.
		return Classic
	}
	return Quorum
}
