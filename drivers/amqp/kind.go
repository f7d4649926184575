package amqp

import (
	"context"
	"errors"
	"strconv"
	"strings"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// queueKind is what a subscriber must know of its queue and AMQP does not say.
type queueKind struct {
	kind  string // typeQuorum, typeClassic, …; "" where it could not be learned
	limit int    // MaxAttempts; 0: none
}

// kindOf learns a queue's kind: from this process's own declaration, from the
// management API, or else from the broker's own complaints.
func (c *Conn) kindOf(ctx context.Context, queue string) (queueKind, error) {
	c.mu.Lock()
	k, known := c.kinds[queue]
	c.mu.Unlock()
	if known {
		return k, nil
	}
	if c.management != nil {
		q, err := c.management.queue(ctx, queue)
		if err != nil {
			return k, err
		}
		return q.kind(), nil
	}
	err := c.do(ctx, func(ch *channel) error {
		var err error
		k, err = learnKind(ch, queue)
		return err
	})
	return k, err
}

// nonsense is no queue type, so that a declaration with it makes nothing: what
// is missing is refused, and what exists is compared, argument by argument,
// and the first difference named with the value that it has.
const nonsense = "polymq"

func learnKind(ch *channel, queue string) (queueKind, error) {
	if _, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil); err != nil {
		return queueKind{}, err
	}
	var k queueKind
	durable, autoDelete := true, false
	args := amqp091.Table{argQueueType: nonsense}
	for range 24 { // more than there are arguments
		if err := ch.reopen(); err != nil {
			return k, err
		}
		_, err := ch.QueueDeclare(queue, durable, autoDelete, false, false, args)
		if err == nil || lost(err) {
			return k, err
		}
		var e *amqp091.Error
		errors.As(err, &e)
		arg := between(e.Reason, "inequivalent arg '", "' for queue")
		value, set := currentValue(e.Reason)
		switch arg {
		case "durable":
			durable = !durable
		case "auto_delete":
			autoDelete = !autoDelete
		case argQueueType:
			k.kind = typeClassic
			if set {
				k.kind, _ = value.(string)
			}
			if k.kind != typeQuorum {
				return k, nil
			}
			args[argQueueType] = k.kind
			args[argDeliveryLimit] = nonsense
			args[argMaxPriority] = nonsense // refused when made, not compared on a quorum queue
		case argDeliveryLimit:
			if text, ok := value.(string); ok {
				value, _ = strconv.ParseInt(text, 10, 64)
			}
			if n, ok := value.(int64); ok && set && n >= 0 {
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
