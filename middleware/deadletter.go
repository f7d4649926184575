package middleware

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/polymq/polymq"
)

// The headers of a dead letter, beside polymq.HeaderError with the error's text,
// of which 4 KiB are kept, and x-death, as Delivery.Deaths reads it.
const (
	// HeaderStack has the stack where the error is a *PanicError: 16 KiB of it.
	HeaderStack = "x-error-stack"
	// HeaderFirstID has the ID that the message had before its first death.
	HeaderFirstID = "x-first-id"
)

const (
	maxError = 4 << 10
	maxStack = 16 << 10
	maxID    = 255
)

// DeadLetterOptions are the options of DeadLetter. nil means the defaults.
type DeadLetterOptions struct {
	// Key is the routing key of dead letters, as Queue.DeadLetterKey is.
	// Default: "", the key that the message has.
	Key string
	// MaxAttempts makes dead letters of messages that fail at this attempt or a
	// later one, whatever their error, which would otherwise get lost where a
	// queue has MaxAttempts: set it to the same or less. Default: 0, only
	// Permanent errors do.
	MaxAttempts int
}

// DeadLetter publishes a message whose handler failed for good to the exchange of
// a publisher, usually the queue's dead-letter exchange, with the error in the
// headers, and acknowledges it:
//
//	middleware.DeadLetter(dead.Publish, nil)
//
// A reject has no place for a reason, on RabbitMQ or in AMQP at all; this has it on
// every backend. The dead letter is the message as it was delivered to this
// middleware, with its death in x-death, as the broker would have written it, so
// that Delivery.Deaths and Conn.Redrive work; without its TTL, and without its
// UserID, which RabbitMQ takes from nobody else. With a Key it loses CC.
//
// It happens at least once: the message is acknowledged when the dead letter is
// confirmed. Where it is not, be it unroutable, the error says so and is not
// permanent, so the message comes again and so does the handler; a process that
// dies in between leaves both. The dead letter's ID is made of the message's first
// one, the queue and the number of its deaths, so that most such second copies are
// dropped where the backend deduplicates, and nothing else is: not the dead letter of
// another queue that had the same message, nor one in whose queue the message itself
// has just been, nor that of a message that was redriven and died again.
func DeadLetter(publish polymq.PublishFunc, opts *DeadLetterOptions) polymq.Middleware {
	var o DeadLetterOptions
	if opts != nil {
		o = *opts
	}
	return func(next polymq.Handler) polymq.Handler {
		return func(ctx context.Context, d *polymq.Delivery) error {
			err := next(ctx, d)
			reason := ""
			switch {
			case err == nil || d.Settled():
			case polymq.IsPermanent(err):
				reason = "rejected"
			case o.MaxAttempts > 0 && d.Attempt >= o.MaxAttempts:
				reason = "delivery_limit"
			}
			if reason == "" {
				return err
			}
			if sent := publish(ctx, deadLetter(d, reason, o.Key, err)); sent != nil {
				return fmt.Errorf("the dead letter was not confirmed (%w) of a message that failed with: %v", sent, err)
			}
			return nil
		}
	}
}

func deadLetter(d *polymq.Delivery, reason, key string, cause error) *polymq.Message {
	m := *d.Message
	m.TTL, m.UserID = 0, ""
	m.Header = maps.Clone(m.Header)
	if m.Header == nil {
		m.Header = polymq.Header{}
	}
	count := 0
	for _, x := range d.Deaths() {
		count += x.Count
	}
	m.ID = nextID(m.Header, d, count)
	m.Header["x-death"] = deaths(d, reason)
	if key != "" {
		m.Key = key
		delete(m.Header, "CC")
	}
	m.Header[polymq.HeaderError] = cut(cause.Error(), maxError)
	delete(m.Header, HeaderStack)
	if p, ok := errors.AsType[*PanicError](cause); ok {
		m.Header[HeaderStack] = cut(string(p.Stack), maxStack)
	}
	return &m
}

// nextID is the ID of the dead letter of a message that has died count times before.
func nextID(h polymq.Header, d *polymq.Delivery, count int) string {
	if d.ID == "" {
		return ""
	}
	first := firstID(d)
	h[HeaderFirstID] = first
	next := first + "/" + d.Queue + "/" + strconv.Itoa(count+1)
	if len(next) > maxID {
		sum := sha256.Sum256([]byte(next))
		next = hex.EncodeToString(sum[:])
	}
	return next
}

// firstID is the ID that a message had before it became a dead letter.
func firstID(d *polymq.Delivery) string {
	if first, ok := d.Header.String(HeaderFirstID); ok {
		return first
	}
	return d.ID
}

// deaths is the message's x-death with one more, the latest first.
func deaths(d *polymq.Delivery, reason string) []any {
	list, _ := d.Header.List("x-death")
	list = slices.Clone(list)
	entry := map[string]any{"queue": d.Queue, "reason": reason, "count": int64(1), "time": time.Now().UTC().Truncate(time.Second), "exchange": d.Exchange, "routing-keys": keys(d)}
	if d.TTL > 0 {
		entry["original-expiration"] = strconv.FormatInt(d.TTL.Milliseconds(), 10)
	}
	same := slices.IndexFunc(list, func(e any) bool {
		t, ok := e.(map[string]any)
		return ok && t["queue"] == d.Queue && t["reason"] == reason
	})
	if same >= 0 {
		entry = maps.Clone(list[same].(map[string]any))
		n, _ := entry["count"].(int64)
		entry["count"] = n + 1
		list = slices.Delete(list, same, same+1)
	}
	return slices.Insert(list, 0, any(entry))
}

func keys(d *polymq.Delivery) []any {
	cc, _ := d.Header.List("CC")
	return append([]any{d.Key}, cc...)
}

// cut is at most n bytes of s, and whole characters.
func cut(s string, n int) string { return strings.ToValidUTF8(s[:min(len(s), n)], "") }
