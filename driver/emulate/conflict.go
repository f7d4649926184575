package emulate

import (
	"fmt"

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
			return fmt.Errorf("%s %q: %w: %s is %#v, asked for %#v", kind, name, driver.ErrConflict, f.name, f.stands, f.ask)
		}
	}
	return nil
}

func sameExchange(was, ask routing.Exchange) error {
	return conflict("exchange", ask.Name,
		field{"Kind", string(was.Kind), string(ask.Kind)},
		field{"Transient", was.Transient, ask.Transient},
		field{"Alternate", was.Alternate, ask.Alternate})
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
		field{"Args", x, y})
}
