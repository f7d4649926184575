package amqp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// wrap puts the sentinel that fits in front of the broker's own error.
func wrap(err error) error {
	var e *amqp091.Error
	if err == nil || !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case amqp091.ContentTooLarge:
		return fmt.Errorf("%w: %w", driver.ErrTooLarge, err)
	case amqp091.AccessRefused:
		return fmt.Errorf("%w: %w", driver.ErrPermission, err)
	case amqp091.NotAllowed:
		if strings.Contains(e.Reason, "not found") {
			return fmt.Errorf("%w: create the vhost or name another in the URL's path: %w", driver.ErrNotFound, err)
		}
		return fmt.Errorf("%w: %w", driver.ErrPermission, err)
	case amqp091.NotFound:
		return fmt.Errorf("%w: %w", driver.ErrNotFound, err)
	case amqp091.ResourceLocked:
		return fmt.Errorf("%w: %w", driver.ErrInUse, err)
	case amqp091.NotImplemented, amqp091.CommandInvalid:
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	case amqp091.PreconditionFailed:
		return wrapPrecondition(e, err)
	}
	return err
}

// The permissions that a broker asks for, with what it says about an exchange and
// about a queue: which of them is missing, it does not say before RabbitMQ 3.13.
type permissions struct{ exchange, queue string }

var (
	makeExchange = permissions{exchange: "configure (where it has an Alternate also read, and write on that)"}
	makeQueue    = permissions{"write, since it is for dead letters", "configure (where it has a DeadLetterExchange also read)"}
	configure    = permissions{"configure", "configure"}
	reading      = permissions{"read", "read"}
	writing      = permissions{"write", "write"}
)

func bindRights(b routing.Binding) permissions {
	if b.ToExchange != "" {
		return permissions{"read on the binding's exchange and write on where it leads", ""}
	}
	return permissions{"read", "write"}
}

// lacking adds which permission the user needs that the broker refused access.
func lacking(p permissions, err error) error {
	var e *amqp091.Error
	if !errors.As(err, &e) || e.Code != amqp091.AccessRefused {
		return err
	}
	right := p.queue
	if strings.Contains(e.Reason, "access to exchange '") {
		right = p.exchange
	}
	return fmt.Errorf("the user needs the permission %s: %w", right, err)
}

func wrapPrecondition(e *amqp091.Error, err error) error {
	switch text := e.Reason; {
	case strings.Contains(text, "inequivalent arg"):
		return fmt.Errorf("%w: %s: %w", driver.ErrConflict, conflictField(text), err)
	case strings.Contains(text, "' in use"), strings.Contains(text, "' not empty"),
		cutAfter(e, "PRECONDITION_FAILED - queue '"), cutAfter(e, "PRECONDITION_FAILED - exchange '"): // which begin no other text
		return fmt.Errorf("%w: %w", driver.ErrInUse, err)
	case strings.Contains(text, "message size"):
		return fmt.Errorf("%w: %w", driver.ErrTooLarge, err)
	case strings.Contains(text, "user_id"):
		return fmt.Errorf("%w: %w", driver.ErrPermission, err)
	}
	return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
}

// conflictField is the field of routing.Queue or routing.Exchange that the
// broker's text "inequivalent arg 'x' for queue …" is about.
func conflictField(text string) string {
	_, rest, _ := strings.Cut(text, "inequivalent arg '")
	arg, _, _ := strings.Cut(rest, "'")
	switch arg {
	case "durable":
		return "Transient"
	case "type":
		return "Kind"
	case "alternate-exchange":
		return "Alternate"
	case argQueueType:
		return "Type"
	case argDeadLetterExchange:
		return "DeadLetterExchange"
	case argDeadLetterKey:
		return "DeadLetterKey"
	case argDeadLetterStrategy:
		return "BestEffortDeadLetter (" + arg + ")"
	case argOverflow:
		return "Overflow, or BestEffortDeadLetter (" + arg + ")"
	case argDeliveryLimit:
		return "MaxAttempts"
	case argTTL:
		return "TTL"
	case argExpires:
		return "Expires"
	case argMaxLength:
		return "MaxLength"
	case argMaxBytes:
		return "MaxBytes"
	case argMaxPriority:
		return "MaxPriority"
	case argSingleActive:
		return "SingleActiveConsumer"
	case "auto_delete":
		return "AutoDelete"
	case "exclusive":
		return "Exclusive"
	}
	return "Args[" + arg + "]"
}

// lost reports whether err says nothing about the request, only that the
// connection or channel ended before the answer, so that asking again helps.
func lost(err error) bool {
	var e *amqp091.Error
	if !errors.As(err, &e) {
		var ne net.Error
		return errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || errors.As(err, &ne) && !errors.Is(err, context.DeadlineExceeded)
	}
	if !e.Server {
		return true
	}
	switch e.Code {
	case amqp091.ConnectionForced, amqp091.FrameError, amqp091.InternalError, amqp091.ChannelError, amqp091.UnexpectedFrame, amqp091.ResourceError:
		return true
	case amqp091.NotFound:
		return nodeDown(e)
	}
	return false
}

// nodeDown: the queue exists, but the cluster's node that has it is away.
func nodeDown(e *amqp091.Error) bool {
	return strings.Contains(e.Reason, "is down or inaccessible") || cutAfter(e, "NOT_FOUND - home node '")
}

// cut reports a text without its end: RabbitMQ sends 255 bytes of it, and a name has as
// many.
func cut(e *amqp091.Error) bool { return len(e.Reason) >= 255 && strings.HasSuffix(e.Reason, "...") }

func cutAfter(e *amqp091.Error, beginning string) bool {
	return cut(e) && strings.HasPrefix(e.Reason, beginning)
}
