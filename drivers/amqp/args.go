package amqp

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/routing"
)

// RabbitMQ's arguments that stand for fields of routing.Queue.
const (
	argQueueType          = "x-queue-type"
	argDeadLetterExchange = "x-dead-letter-exchange"
	argDeadLetterKey      = "x-dead-letter-routing-key"
	argDeadLetterStrategy = "x-dead-letter-strategy"
	argOverflow           = "x-overflow"
	argDeliveryLimit      = "x-delivery-limit"
	argMaxPriority        = "x-max-priority"
	argAlternate          = "alternate-exchange"

	typeQuorum  = "quorum"
	typeClassic = "classic"

	rejectPublish = "reject-publish"
	atLeastOnce   = "at-least-once"
)

// knownArgs are the arguments that routing.Queue.Args may hold: RabbitMQ's
// documented ones that no field stands for.
var knownArgs = []string{
	"x-message-ttl", "x-expires", "x-max-length", "x-max-length-bytes", argOverflow, "x-single-active-consumer",
	argMaxPriority, "x-queue-mode", "x-queue-version", "x-queue-master-locator", "x-queue-leader-locator",
	"x-max-in-memory-length", "x-max-in-memory-bytes", "x-quorum-initial-group-size", "x-quorum-target-group-size",
	"x-delayed-retry-type", "x-delayed-retry-min", "x-delayed-retry-max", "x-consumer-timeout",
}

// queueForm is a queue as the broker is asked for it.
type queueForm struct {
	kind string
	args amqp091.Table
}

func formOf(q routing.Queue, v version) (queueForm, error) {
	form := queueForm{kind: q.Type, args: amqp091.Table{}}
	var errs []error
	refuse := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{errors.ErrUnsupported}, args...)...))
	}
	if form.kind == "" {
		form.kind = typeQuorum
		if q.Transient {
			form.kind = typeClassic
		}
	}
	switch form.kind {
	case typeQuorum:
		if q.Transient {
			refuse("a quorum queue cannot be Transient: leave Type empty or declare it durable")
		}
	case typeClassic:
	default:
		refuse("Type %q: want quorum or classic", q.Type)
	}
	form.args[argQueueType] = form.kind
	var unknown []string
	for name, value := range q.Args {
		if !slices.Contains(knownArgs, name) {
			unknown = append(unknown, name)
			continue
		}
		form.args[name] = argOf(value)
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		refuse("Args %s: RabbitMQ takes %s here", strings.Join(unknown, ", "), strings.Join(knownArgs, ", "))
	}
	if q.DeadLetterExchange != "" {
		form.args[argDeadLetterExchange] = exchangeName(q.DeadLetterExchange)
		if q.DeadLetterKey != "" {
			form.args[argDeadLetterKey] = q.DeadLetterKey
		}
		if !q.BestEffortDeadLetter {
			if form.kind != typeQuorum {
				refuse("a classic queue can lose dead letters: set BestEffortDeadLetter, or use a quorum queue")
			}
			if o, given := form.args[argOverflow]; given && o != rejectPublish {
				refuse("dead letters are safe only with %s=%s: set BestEffortDeadLetter, or leave the argument out", argOverflow, rejectPublish)
			}
			form.args[argDeadLetterStrategy] = atLeastOnce
			form.args[argOverflow] = rejectPublish
		}
	}
	if form.kind == typeQuorum {
		if q.MaxAttempts > 0 {
			// The broker gives up when its count of returns exceeds the limit.
			form.args[argDeliveryLimit] = int64(q.MaxAttempts - 1)
		} else if v.atLeast(4, 0) {
			form.args[argDeliveryLimit] = int64(-1)
		}
	} else if q.MaxAttempts > 0 {
		refuse("a classic queue cannot count attempts: leave MaxAttempts at 0, or use a quorum queue")
	}
	return form, errors.Join(errs...)
}

// exchangeName undoes what stands for the default exchange where "" means none.
func exchangeName(name string) string {
	if name == routing.DefaultExchange {
		return ""
	}
	return name
}

func exchangeArgs(e routing.Exchange) (amqp091.Table, error) {
	switch e.Kind {
	case routing.Direct, routing.Fanout, routing.Topic, routing.Headers:
	default:
		return nil, fmt.Errorf("%w: Kind %q", errors.ErrUnsupported, e.Kind)
	}
	if e.Alternate == "" {
		return nil, nil
	}
	return amqp091.Table{argAlternate: exchangeName(e.Alternate)}, nil
}

func bindingArgs(b routing.Binding) amqp091.Table {
	if len(b.Args) == 0 {
		return nil
	}
	t := make(amqp091.Table, len(b.Args))
	for k, v := range b.Args {
		t[k] = argOf(v)
	}
	return t
}

// argOf is a value of an argument, in the one type of its kind, so that the
// same argument always compares equal at the broker.
func argOf(v any) any {
	switch v := v.(type) {
	case int:
		return int64(v)
	case map[string]any, []any:
		return fieldOf(v)
	}
	return valueOf(v)
}
