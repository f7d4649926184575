package polymq

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
)

// HeaderError is the header that carries an error's text: in a reply by
// Responder, and in a dead letter by middleware.DeadLetter.
const HeaderError = "x-error"

// maxErrorText is how much of an error's text a reply carries, in bytes.
const maxErrorText = 4 << 10

// RemoteError is the error that the other side replied with.
type RemoteError struct {
	// Text is the error's, cut off after 4 KiB.
	Text string
	// Reply is the whole reply: its header and body may say more.
	Reply *Message
}

func (e *RemoteError) Error() string { return "the other side replied with an error: " + e.Text }

// Reply publishes m as the answer to a delivery, to the queue that its ReplyTo
// names, and returns as Publisher.Publish does, when the queue has it. Key and
// CorrelationID of the answer are set, the latter to the delivery's, or to its ID
// where it has none; m is not changed. It does not settle the delivery.
//
// ErrUnroutable means that the caller is gone (of RabbitMQ's direct reply-to that is
// not known), ErrInvalid that the delivery has no ReplyTo. All replies of a Conn go
// through one publisher, which is made when it is first needed.
func (d *Delivery) Reply(ctx context.Context, m *Message) error {
	return d.wrap("reply", d.reply(ctx, m))
}

func (d *Delivery) reply(ctx context.Context, m *Message) error {
	switch err := d.usable(ctx); {
	case err != nil:
		return err
	case m == nil:
		return invalid("the message is nil")
	case d.ReplyTo == "":
		return invalid("the delivery has no ReplyTo: nobody waits for a reply")
	}
	p, err := d.s.conn.replier(ctx)
	if err != nil {
		return err
	}
	answer := *m
	answer.Key, answer.CorrelationID = d.ReplyTo, cmp.Or(d.CorrelationID, d.ID)
	err = p.Publish(ctx, &answer)
	if failed, ok := errors.AsType[*PublishError](err); ok {
		err = failed.Failures[0].Err
	}
	return err
}

// replier is the publisher of the connection's replies.
func (c *Conn) replier(ctx context.Context) (*Publisher, error) {
	if p := c.replies.Load(); p != nil {
		return p, nil
	}
	p, err := c.publisher(ctx, "", PublisherOptions{})
	if err != nil {
		return nil, err
	}
	if !c.replies.CompareAndSwap(nil, p) {
		_ = p.Close(ctx) // somebody was faster; nothing is on its way
	}
	return c.replies.Load(), nil
}

// Responder makes a Handler of a function that answers. What it returns becomes
// the reply (a nil message is an empty one), and the delivery is acknowledged
// when the caller's queue has it. An error becomes a reply too, with its text in
// HeaderError, and in the message that may come with it whatever else is to be
// said:
//
//	nil                    the message is the reply; Ack
//	Permanent(err)         the reply is the error; Reject
//	RetryAfter(delay, err) no reply; Nack: another attempt is to answer
//	any other error        the reply is the error; Ack
//
// When the caller is gone, that is logged and the delivery is settled as if it
// had its reply. A reply that cannot be sent at all, such as one that is too
// large, is replaced by that error, which is Permanent. When it is not known
// whether a reply arrived, the delivery is nacked and the function called again,
// so it must bear that. A delivery without ReplyTo is handled as by any Handler,
// and the reply dropped.
func Responder(fn func(ctx context.Context, d *Delivery) (*Message, error)) Handler {
	return func(ctx context.Context, d *Delivery) error {
		reply, err := fn(ctx, d)
		if _, later := RetryDelay(err); later || d.ReplyTo == "" {
			return err
		}
		if sent := answer(ctx, d, reply, err); sent != nil {
			if !unsendable(sent) {
				return sent
			}
			err = Permanent(sent)
			// Where nothing can be sent there, as ReplyTo is none, nobody hears it.
			if sent := answer(ctx, d, nil, err); sent != nil && !unsendable(sent) {
				return sent
			}
		}
		if IsPermanent(err) {
			return err
		}
		return nil
	}
}

// unsendable reports that another try would fail as well.
func unsendable(err error) bool {
	return errors.Is(err, ErrTooLarge) || errors.Is(err, ErrInvalid) || errors.Is(err, errors.ErrUnsupported)
}

// answer sends a reply, to nobody where nobody waits.
func answer(ctx context.Context, d *Delivery, reply *Message, cause error) error {
	var m Message
	if reply != nil {
		m = *reply
	}
	if cause != nil {
		if m.Header = maps.Clone(m.Header); m.Header == nil {
			m.Header = Header{}
		}
		text := cause.Error()
		m.Header[HeaderError] = strings.ToValidUTF8(text[:min(len(text), maxErrorText)], "")
	}
	err := d.Reply(ctx, &m)
	if errors.Is(err, ErrUnroutable) {
		d.s.conn.log.LogAttrs(ctx, slog.LevelInfo, "polymq: the caller is gone, its reply is dropped",
			slog.String("queue", d.Queue), slog.String("id", d.ID), slog.String("reply_to", d.ReplyTo))
		return nil
	}
	return err
}

// TypedResponder makes a Handler, as Responder does, of a function that takes the
// decoded request and returns the reply's value, which the codec that decoded the
// request encodes. Codecs are as for Typed. A request that cannot be decoded is
// answered with that error and rejected.
func TypedResponder[Req, Resp any](fn func(ctx context.Context, d *Delivery, v Req) (Resp, error), codecs ...Codec) Handler {
	return Responder(func(ctx context.Context, d *Delivery) (*Message, error) {
		var v Req
		codec, err := decode(d.Message, &v, codecs)
		if err != nil {
			return nil, Permanent(err)
		}
		result, err := fn(ctx, d, v)
		if err != nil {
			return nil, err
		}
		reply := new(Message)
		if err := encode(reply, result, codec); err != nil {
			return nil, Permanent(err)
		}
		return reply, nil
	})
}
