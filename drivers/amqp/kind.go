package amqp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// queueKind is what a subscriber must know of its queue and AMQP does not say.
type queueKind struct {
	kind  string // typeQuorum, typeClassic, …; "" where it could not be learned
	limit int    // MaxAttempts; 0: none
	// temporary says that it ends with its connection or its last subscriber.
	temporary bool
	// refuses says that it refuses what is beyond its limit.
	refuses bool
}

const (
	// managementTime is how long a management API may take to answer.
	managementTime = 2 * time.Second
	// managementSoon is when a subscriber asks the broker as well: the API's node
	// may hang, or be slow while the cluster elects leaders.
	managementSoon = 250 * time.Millisecond
)

// kindOf asks for a queue's kind each time, since another process may have made
// the queue anew: the management API where there is one that answers, else the
// broker's own complaints.
func (c *Conn) kindOf(ctx context.Context, queue string) (queueKind, error) {
	return c.kindFrom(ctx, queue, managementSoon)
}

// kindFrom is kindOf that asks the broker when the management API has not answered
// after patience, and takes the first answer of the two.
func (c *Conn) kindFrom(ctx context.Context, queue string, patience time.Duration) (queueKind, error) {
	if c.management == nil {
		return c.kindOfBroker(ctx, queue)
	}
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		kind queueKind
		err  error
	}
	managed, direct := make(chan answer, 1), make(chan answer, 1)
	if err := c.begin(); err != nil {
		return queueKind{}, err
	}
	go func() {
		defer c.tasks.Done()
		limited, cancel := context.WithTimeout(asking, managementTime)
		defer cancel()
		q, err := c.management.queue(limited, queue)
		managed <- answer{q.kind(), err}
	}()
	askBroker := func() error {
		if err := c.begin(); err != nil {
			return err
		}
		go func() {
			defer c.tasks.Done()
			k, err := c.kindOfBroker(asking, queue)
			direct <- answer{k, err}
		}()
		return nil
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	begun := false
	for {
		select {
		case a := <-managed:
			if a.err == nil || errors.Is(a.err, driver.ErrNotFound) || ctx.Err() != nil {
				return a.kind, a.err
			}
			managed = nil
			if begun {
				continue
			}
		case a := <-direct:
			if errors.Is(a.err, driver.ErrPermission) && managed != nil {
				if m := <-managed; m.err == nil || errors.Is(m.err, driver.ErrNotFound) {
					a = m
				}
			}
			return a.kind, a.err
		case <-late.C:
			if begun {
				continue
			}
		}
		if err := askBroker(); err != nil {
			return queueKind{}, err
		}
		begun = true
	}
}

// kindOfBroker learns a queue's kind from the broker's complaints, or, where these are
// cut short, from what was declared.
func (c *Conn) kindOfBroker(ctx context.Context, queue string) (queueKind, error) {
	var k queueKind
	err := c.doWith(ctx, []string{queue}, func(ch *channel) error {
		var err error
		if k, err = learnKind(ch, queue); errors.Is(err, errUntold) {
			k, err = c.kindDeclared(ch, queue)
		}
		return err
	})
	if err != nil {
		return queueKind{}, err // f may still be writing k
	}
	return k, nil
}

// errUntold is an ErrPermission since it means the same: nobody tells.
var errUntold = fmt.Errorf("%w: the queue's name is too long for RabbitMQ to tell its type and limits (Delivery.Attempt can be 0, MaxAttempts does not see those that ended in a delay): give the URL the management option", driver.ErrPermission)

// kindDeclared is the kind of a queue that stands and that the broker agrees to be what
// this connection has declared; else errUntold.
func (c *Conn) kindDeclared(ch *channel, queue string) (queueKind, error) {
	declared := c.declared.Topology().Queues
	i := slices.IndexFunc(declared, func(q routing.Queue) bool { return q.Name == queue })
	if i < 0 {
		return queueKind{}, errUntold
	}
	form, err := formOf(declared[i], c.version)
	if err == nil {
		err = ch.reopen()
	}
	if err == nil {
		err = form.declare(ch, queue)
	}
	if err != nil && !lost(err) {
		err = errUntold
	}
	return queueKind{kind: form.kind, limit: declared[i].MaxAttempts, refuses: refusesBy(form.args, nil)}, err
}

// nonsense is neither a delivery limit nor a queue type, so that a declaration with it makes nothing:
// what is missing is refused, and what exists is compared, argument by
// argument, and the first difference named with the value that it has.
const nonsense = "polymq"

func learnKind(ch *channel, queue string) (queueKind, error) {
	if _, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil); err != nil {
		return queueKind{}, err
	}
	var k queueKind
	durable, autoDelete := true, false
	args := amqp091.Table{
		argQueueType:     typeQuorum,
		argDeliveryLimit: nonsense,
		argMaxPriority:   nonsense, // refused when made, not compared on a quorum queue
	}
	for range 24 { // more than there are arguments
		if err := ch.reopen(); err != nil {
			return k, err
		}
		_, err := ch.QueueDeclare(queue, durable, autoDelete, false, false, args)
		if err == nil || lost(err) {
			return k, err
		}
		var e *amqp091.Error
		if !errors.As(err, &e) {
			return k, err
		}
		if e.Code == amqp091.AccessRefused {
			return queueKind{}, fmt.Errorf("attempts are not known (Delivery.Attempt is 0, MaxAttempts does not see those that ended in a delay): give the user the configure permission for the queue, or the URL the management option: %w", err)
		}
		if e.Code == amqp091.ResourceLocked { // an exclusive one, of this connection
			return queueKind{kind: typeClassic, temporary: true}, nil
		}
		arg := between(e.Reason, "inequivalent arg '", "' for queue")
		if arg != "durable" && arg != "auto_delete" && cut(e) {
			return queueKind{}, errUntold
		}
		value, set := currentValue(e.Reason)
		switch arg {
		case "durable":
			durable = !durable
		case "auto_delete":
			autoDelete = !autoDelete
			k.temporary = autoDelete
		case argMaxPriority: // no quorum queue: what is it?
			args[argQueueType] = nonsense
			delete(args, argDeliveryLimit)
			delete(args, argMaxPriority)
			if set {
				args[argMaxPriority] = number(value)
			}
		case argQueueType:
			k.kind = typeClassic
			if set {
				k.kind, _ = value.(string)
			}
			k.refuses = refusesBy(args, nil)
			return k, nil
		case argDeliveryLimit:
			k.kind, k.refuses = typeQuorum, refusesBy(args, nil)
			if n, ok := number(value).(int64); ok && set && n >= 0 {
				k.limit = int(n) + 1
			}
			return k, nil
		default:
			if _, repeated := args[arg]; arg == "" || repeated || !set {
				return k, nil // a text that this version does not know
			}
			args[arg] = value
		}
	}
	return k, nil
}

// number is an integer that the broker named without its type.
func number(v any) any {
	if text, ok := v.(string); ok {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n
		}
	}
	return v
}

// currentValue reads "… but current is the value '5' of type 'signedint'",
// "… but current is 'quorum'" and "… but current is none".
func currentValue(text string) (any, bool) {
	_, text, found := strings.Cut(text, " but current is ")
	if !found || text == "none" {
		return nil, false
	}
	if rest, ok := strings.CutPrefix(text, "the value '"); ok {
		i := strings.LastIndex(rest, "' of type '")
		if i < 0 {
			return nil, false
		}
		value, kind := rest[:i], strings.TrimSuffix(rest[i+len("' of type '"):], "'")
		switch kind {
		case "longstr":
			return value, true
		case "bool":
			return value == "true", true
		}
		n, err := strconv.ParseInt(value, 10, 64)
		return n, err == nil
	}
	return strings.Trim(text, "'"), true
}
