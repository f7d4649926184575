package emulate

import (
	"cmp"
	"fmt"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// field is one property of a declaration, as it stands and as it was asked for.
type field struct {
	name        string
	stands, ask any
}

// conflict names the first field that differs.
func conflict(kind, name string, fields ...field) error {
	for _, f := range fields {
		if f.stands != f.ask {
			return fmt.Errorf("%s %q: %w: %s is %s, asked for %s", kind, name, driver.ErrConflict, f.name, text(f.stands), text(f.ask))
		}
	}
	return nil
}

func text(v any) string {
	if d, ok := v.(time.Duration); ok {
		return d.String()
	}
	return fmt.Sprintf("%#v", v)
}

// overflow has the default filled in.
func overflow(q routing.Queue) string { return string(cmp.Or(q.Overflow, routing.DropHead)) }

func sameExchange(was, ask routing.Exchange) error {
	x, _ := encodeArgs(was.Args)
	y, err := encodeArgs(ask.Args)
	if err != nil {
		return fmt.Errorf("exchange %q: %w", ask.Name, err)
	}
	return conflict("exchange", ask.Name,
		field{"Kind", string(was.Kind), string(ask.Kind)},
		field{"Transient", was.Transient, ask.Transient},
		field{"Alternate", was.Alternate, ask.Alternate},
		field{"Args", x, y})
}

func sameQueue(was, ask routing.Queue) error {
	x, _ := encodeArgs(was.Args)
	y, err := encodeArgs(ask.Args)
	if err != nil {
		return fmt.Errorf("queue %q: %w", ask.Name, err)
	}
	return conflict("queue", ask.Name,
		field{"Type", was.Type, ask.Type},
		field{"Transient", was.Transient, ask.Transient},
		field{"DeadLetterExchange", was.DeadLetterExchange, ask.DeadLetterExchange},
		field{"DeadLetterKey", was.DeadLetterKey, ask.DeadLetterKey},
		field{"BestEffortDeadLetter", was.BestEffortDeadLetter, ask.BestEffortDeadLetter},
		field{"MaxAttempts", was.MaxAttempts, ask.MaxAttempts},
		field{"TTL", was.TTL, ask.TTL},
		field{"Expires", was.Expires, ask.Expires},
		field{"MaxLength", was.MaxLength, ask.MaxLength},
		field{"MaxBytes", was.MaxBytes, ask.MaxBytes},
		field{"Overflow", overflow(was), overflow(ask)},
		field{"MaxPriority", was.MaxPriority, ask.MaxPriority},
		field{"SingleActiveConsumer", was.SingleActiveConsumer, ask.SingleActiveConsumer},
		field{"Exclusive", was.Exclusive, ask.Exclusive},
		field{"AutoDelete", was.AutoDelete, ask.AutoDelete},
		field{"Args", x, y})
}
