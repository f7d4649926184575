package amqp

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/internal/rabbitmq"
	"github.com/polymq/polymq/routing"
)

// RabbitMQ's arguments that stand for fields of routing.Queue.
const (
	argQueueType          = rabbitmq.ArgQueueType
	argDeadLetterExchange = rabbitmq.ArgDeadLetterExchange
	argDeadLetterKey      = rabbitmq.ArgDeadLetterKey
	argDeadLetterStrategy = rabbitmq.ArgDeadLetterStrategy
	argOverflow           = rabbitmq.ArgOverflow
	argDeliveryLimit      = rabbitmq.ArgDeliveryLimit
	argTTL                = rabbitmq.ArgTTL
	argExpires            = rabbitmq.ArgExpires
	argMaxLength          = rabbitmq.ArgMaxLength
	argMaxBytes           = rabbitmq.ArgMaxBytes
	argMaxPriority        = rabbitmq.ArgMaxPriority
	argSingleActive       = rabbitmq.ArgSingleActive
	argMasterLocator      = "x-queue-master-locator"
	argAlternate          = rabbitmq.ArgAlternate

	typeQuorum  = routing.Quorum
	typeClassic = routing.Classic

	rejectPublish = rabbitmq.RejectPublish
	atLeastOnce   = rabbitmq.AtLeastOnce
)

// knownArgs are the arguments that routing.Queue.Args may hold: RabbitMQ's
// documented ones that no field stands for.
var knownArgs = []string{
	"x-queue-mode", "x-queue-version", argMasterLocator, "x-queue-leader-locator",
	"x-max-in-memory-length", "x-max-in-memory-bytes", "x-quorum-initial-group-size", "x-quorum-target-group-size",
	"x-delayed-retry-type", "x-delayed-retry-min", "x-delayed-retry-max", "x-consumer-timeout",
}

// queueForm is a queue as the broker is asked for it.
type queueForm struct {
	kind                           string
	durable, exclusive, autoDelete bool
	args                           amqp091.Table
}

// drops reports that a restart of the broker loses what the queue has confirmed;
// see routing.Queue.DefaultType.
func (f queueForm) drops() bool {
	return f.kind == typeClassic && f.durable && !f.exclusive && f.args[argOverflow] == rejectPublish
}

func (f queueForm) declare(ch *channel, name string) error {
	_, err := ch.QueueDeclare(name, f.durable, f.autoDelete, f.exclusive, false, f.args)
	return err
}

func formOf(q routing.Queue, v version) (queueForm, error) {
	form := queueForm{kind: q.Type, durable: !q.Transient, exclusive: q.Exclusive, autoDelete: q.AutoDelete}
	var errs []error
	refuse := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{errors.ErrUnsupported}, args...)...))
	}
	if form.kind == "" {
		form.kind = q.DefaultType()
	}
	switch form.kind {
	case typeQuorum:
		refuseQuorum(q, refuse)
	case typeClassic:
		if q.MaxAttempts > 0 {
			refuse("MaxAttempts: a classic queue cannot count attempts, and %s: leave one of them out", whyClassic(q))
		}
	default:
		refuse("Type %q: want quorum or classic", q.Type)
	}
	refuseDeadLetter(form.kind, q, refuse)
	form.args = rabbitmq.Arguments(q, form.kind, v.atLeast(4, 0))
	addArgs(form, q, v, refuse)
	return form, errors.Join(errs...)
}

// refuseQuorum refuses what RabbitMQ's quorum queues have not.
func refuseQuorum(q routing.Queue, refuse func(string, ...any)) {
	for _, f := range [...]struct {
		set  bool
		name string
	}{{q.Transient, "Transient"}, {q.Exclusive, "Exclusive"}, {q.AutoDelete, "AutoDelete"}} {
		if f.set {
			refuse("%s: a quorum queue cannot be it: leave Type empty, or %s out", f.name, f.name)
		}
	}
	if q.MaxPriority > 0 {
		refuse("MaxPriority: RabbitMQ's quorum queues have none (from 4.3 on they order by priority in a way of their own): leave Type empty, or MaxPriority out")
	}
}

// whyClassic says what made a queue a classic one.
func whyClassic(q routing.Queue) string {
	switch {
	case q.Type != "":
		return "Type is classic"
	case q.MaxPriority > 0:
		return "MaxPriority makes it one"
	case q.Exclusive:
		return "Exclusive makes it one"
	case q.AutoDelete:
		return "AutoDelete makes it one"
	}
	return "Transient makes it one"
}

// addArgs takes over Args.
func addArgs(form queueForm, q routing.Queue, v version, refuse func(string, ...any)) {
	var unknown []string
	for name, value := range q.Args {
		form.args[name] = argOf(value)
		if !slices.Contains(knownArgs, name) {
			unknown = append(unknown, name)
		} else if name == argMasterLocator && v.atLeast(4, 3) {
			// The broker would close the connection.
			refuse("Args[%s]: RabbitMQ has it no more: use x-queue-leader-locator", name)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		refuse("Args %s: RabbitMQ takes %s here", strings.Join(unknown, ", "), strings.Join(knownArgs, ", "))
	}
}

// refuseDeadLetter refuses dead letters that could be lost, unless they may be.
func refuseDeadLetter(kind string, q routing.Queue, refuse func(string, ...any)) {
	if q.DeadLetterExchange == "" || q.BestEffortDeadLetter {
		return
	}
	if kind != typeQuorum {
		refuse("DeadLetterExchange: a classic queue can lose dead letters, and %s: set BestEffortDeadLetter, or make it a quorum queue", whyClassic(q))
	}
	if (q.MaxLength > 0 || q.MaxBytes > 0) && !q.Rejects() {
		refuse("DeadLetterExchange: with a limit that drops the head RabbitMQ can lose dead letters: set BestEffortDeadLetter, or Overflow to %s", rejectPublish)
	}
}

func exchangeArgs(e routing.Exchange) (amqp091.Table, error) {
	args := amqp091.Table{}
	for name, v := range e.Args {
		if !e.Kind.Custom() {
			return nil, fmt.Errorf("%w: Args[%s]: RabbitMQ's exchanges take none here", errors.ErrUnsupported, name)
		}
		args[name] = argOf(v)
	}
	if e.Alternate != "" {
		args[argAlternate] = rabbitmq.ExchangeName(e.Alternate)
	}
	if len(args) == 0 {
		return nil, nil
	}
	return args, nil
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
