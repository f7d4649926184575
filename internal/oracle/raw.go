package oracle

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// raw is RabbitMQ as one uses it without polymq.
type raw struct {
	url     string
	user    string
	version [2]int
	classic bool // as the script says
	conns   [connections]*rawConn
	subs    map[*rawSubscription]bool
}

type rawConn struct {
	conn *amqp.Connection
	ch   *amqp.Channel // for everything but publishing; an error closes it
	pub  *amqp.Channel // confirming
	back chan amqp.Return
	end  chan *amqp.Error // of pub
	lost chan *amqp.Error // of conn
}

func openRaw(address string) (*raw, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	u.RawQuery = "" // polymq's own options
	r := &raw{url: u.String(), user: u.User.Username(), subs: map[*rawSubscription]bool{}}
	for i := range r.conns {
		if r.conns[i], err = r.dial(); err != nil {
			return nil, err
		}
	}
	text, _ := r.conns[0].conn.Properties["version"].(string)
	if _, err := fmt.Sscanf(text, "%d.%d", &r.version[0], &r.version[1]); err != nil {
		return nil, fmt.Errorf("RabbitMQ's version %q: %w", text, err)
	}
	return r, nil
}

func (r *raw) dial() (*rawConn, error) {
	// The machine may be too busy for the usual 10 s.
	conn, err := amqp.DialConfig(r.url, amqp.Config{Heartbeat: time.Minute, Locale: "en_US"})
	if err != nil {
		return nil, err
	}
	return &rawConn{conn: conn, lost: conn.NotifyClose(make(chan *amqp.Error, 1))}, nil
}

// revive opens what the broker has closed, and says why it did.
func (r *raw) revive() (why error) {
	for i, c := range r.conns {
		if !c.conn.IsClosed() {
			continue
		}
		why = errors.New("a connection was lost")
		if e := <-c.lost; e != nil {
			why = e
		}
		n, err := r.dial()
		if err != nil {
			return err
		}
		r.conns[i] = n
	}
	return why
}

// channel is the one for everything but publishing, made anew where an error
// has closed it.
func (c *rawConn) channel() (ch *amqp.Channel, err error) {
	if c.ch == nil || c.ch.IsClosed() {
		c.ch, err = c.conn.Channel()
	}
	return c.ch, err
}

func (c *rawConn) publishing() (*amqp.Channel, error) {
	if c.pub != nil && !c.pub.IsClosed() {
		return c.pub, nil
	}
	ch, err := c.conn.Channel()
	if err != nil {
		return nil, err
	}
	c.pub, c.back, c.end = ch, ch.NotifyReturn(make(chan amqp.Return, 100)), ch.NotifyClose(make(chan *amqp.Error, 1))
	return ch, ch.Confirm(false)
}

// meaning puts polymq's sentinel before the broker's error.
func meaning(err error) error {
	e, ok := errors.AsType[*amqp.Error](err)
	if !ok {
		return err
	}
	sentinel := polymq.ErrPermission
	switch {
	case e.Code == amqp.NotFound:
		sentinel = polymq.ErrNotFound
	case e.Code == amqp.ResourceLocked, e.Code == amqp.PreconditionFailed && (strings.Contains(e.Reason, "in use") || strings.Contains(e.Reason, "not empty")):
		sentinel = polymq.ErrInUse
	case e.Code == amqp.PreconditionFailed && strings.Contains(e.Reason, "inequivalent arg"):
		sentinel = polymq.ErrConflict
	case e.Code != amqp.AccessRefused:
		return err
	}
	return fmt.Errorf("%w: %w", sentinel, err)
}

func (r *raw) do(on int, f func(ch *amqp.Channel) error) error {
	ch, err := r.conns[on].channel()
	if err == nil {
		err = f(ch)
	}
	return meaning(err)
}

func (r *raw) declare(_ context.Context, on int, t routing.Topology) error {
	return r.do(on, func(ch *amqp.Channel) error {
		for _, x := range t.Exchanges {
			var args amqp.Table
			if x.Alternate != "" {
				args = amqp.Table{"alternate-exchange": defaulted(x.Alternate)}
			}
			if err := ch.ExchangeDeclare(x.Name, string(x.Kind), !x.Transient, false, false, false, args); err != nil {
				return err
			}
		}
		for _, q := range t.Queues {
			if _, err := ch.QueueDeclare(q.Name, !q.Transient, q.AutoDelete, q.Exclusive, false, r.queueArgs(q)); err != nil {
				return err
			}
		}
		for _, b := range t.Bindings {
			if err := rawBind(ch, b); err != nil {
				return err
			}
		}
		return nil
	})
}

// defaulted is the name of an exchange as the broker knows it.
func defaulted(exchange string) string {
	if exchange == routing.DefaultExchange {
		return ""
	}
	return exchange
}

// isQuorum is the type of a queue: the one that can do what is asked for, keeps
// what it has, and does it exactly.
func isQuorum(q routing.Queue, classic bool) bool {
	switch {
	case classic, q.Transient, q.Exclusive, q.AutoDelete, q.MaxPriority > 0:
		return false
	case q.MaxAttempts > 0, q.DeadLetterExchange != "" && !q.BestEffortDeadLetter, q.Rejects():
		return true
	}
	return q.Expires == 0
}

// queueArgs are the arguments of a queue, as a careful user writes them.
func (r *raw) queueArgs(q routing.Queue) amqp.Table {
	args := amqp.Table{"x-queue-type": "quorum"}
	quorum := isQuorum(q, r.classic)
	if !quorum {
		args["x-queue-type"] = "classic"
	} else if r.version[0] >= 4 {
		args["x-delivery-limit"] = int64(-1)
	}
	if q.DeadLetterExchange != "" {
		args["x-dead-letter-exchange"] = defaulted(q.DeadLetterExchange)
		if quorum && !q.BestEffortDeadLetter {
			args["x-dead-letter-strategy"] = "at-least-once"
			args["x-overflow"] = "reject-publish"
		}
	}
	if q.DeadLetterKey != "" {
		args["x-dead-letter-routing-key"] = q.DeadLetterKey
	}
	for name, n := range map[string]int64{
		"x-message-ttl": q.TTL.Milliseconds(), "x-expires": q.Expires.Milliseconds(), "x-max-length": int64(q.MaxLength),
		"x-max-length-bytes": q.MaxBytes, "x-max-priority": int64(q.MaxPriority),
	} {
		if n > 0 {
			args[name] = n
		}
	}
	if q.Overflow != "" {
		args["x-overflow"] = string(q.Overflow)
	}
	if q.SingleActiveConsumer {
		args["x-single-active-consumer"] = true
	}
	return args
}

func rawBind(ch *amqp.Channel, b routing.Binding) error {
	if b.ToExchange != "" {
		return ch.ExchangeBind(b.ToExchange, b.Key, b.Exchange, false, table(b.Args))
	}
	return ch.QueueBind(b.Queue, b.Key, b.Exchange, false, table(b.Args))
}

func (r *raw) bind(_ context.Context, on int, b routing.Binding) error {
	return r.do(on, func(ch *amqp.Channel) error { return rawBind(ch, b) })
}

func (r *raw) unbind(_ context.Context, on int, b routing.Binding) error {
	err := r.do(on, func(ch *amqp.Channel) error {
		if b.ToExchange != "" {
			return ch.ExchangeUnbind(b.ToExchange, b.Key, b.Exchange, false, table(b.Args))
		}
		return ch.QueueUnbind(b.Queue, b.Key, b.Exchange, table(b.Args))
	})
	return unlessMissing(err) // some versions mind
}

func unlessMissing(err error) error {
	if errors.Is(err, polymq.ErrNotFound) {
		return nil
	}
	return err
}

func (r *raw) deleteQueue(ctx context.Context, on int, queue string, o polymq.DeleteOptions) error {
	consumed := false
	err := r.do(on, func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err != nil {
			return err
		}
		consumed = q.Consumers > 0
		// Quorum queues take no conditions.
		if o.IfUnused && q.Consumers > 0 || o.IfEmpty && q.Messages > 0 {
			return polymq.ErrInUse
		}
		_, err = ch.QueueDelete(queue, false, false, false)
		return err
	})
	if consumed {
		// A queue made anew at once would keep the old one's consumers.
		pause(ctx, 250*time.Millisecond)
	}
	return unlessMissing(err)
}

func (r *raw) deleteExchange(_ context.Context, on int, exchange string, o polymq.DeleteOptions) error {
	return unlessMissing(r.do(on, func(ch *amqp.Channel) error { return ch.ExchangeDelete(exchange, o.IfUnused, false) }))
}

func (r *raw) purge(_ context.Context, on int, queue string) (n int, err error) {
	err = r.do(on, func(ch *amqp.Channel) error {
		n, err = ch.QueuePurge(queue, false)
		return err
	})
	return n, err
}

func (r *raw) count(_ context.Context, on int, queue routing.Queue) (ready, consumers int, err error) {
	err = r.do(on, func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(queue.Name, true, false, false, false, nil)
		ready, consumers = q.Messages, q.Consumers
		return err
	})
	return ready, consumers, err
}

// inspect counts what is unsettled here: what was sent and is not settled.
func (r *raw) inspect(ctx context.Context, on int, queue string) (polymq.QueueInfo, error) {
	ready, consumers, err := r.count(ctx, on, routing.Queue{Name: queue})
	info := polymq.QueueInfo{Ready: ready, Consumers: consumers}
	for s := range r.subs {
		if s.queue == queue {
			info.Unsettled += s.unsettled()
		}
	}
	return info, err
}

func (r *raw) publish(ctx context.Context, on int, exchange string, drop bool, ms []polymq.Message) []error {
	errs := make([]error, len(ms))
	for i := range ms {
		errs[i] = meaning(r.publishOne(ctx, on, exchange, drop, &ms[i]))
	}
	return errs
}

func (r *raw) publishOne(ctx context.Context, on int, exchange string, drop bool, m *polymq.Message) error {
	ch, err := r.conns[on].publishing()
	if err != nil {
		return err
	}
	p := amqp.Publishing{
		Headers: table(m.Header), ContentType: m.ContentType, ContentEncoding: m.ContentEncoding, DeliveryMode: amqp.Persistent,
		Priority: m.Priority, CorrelationId: m.CorrelationID, ReplyTo: m.ReplyTo, MessageId: m.ID, Timestamp: m.Time,
		Type: m.Type, UserId: m.UserID, AppId: m.AppID, Body: m.Body,
	}
	if m.Transient {
		p.DeliveryMode = amqp.Transient
	}
	if m.TTL > 0 {
		p.Expiration = strconv.FormatInt(m.TTL.Milliseconds(), 10)
	}
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, exchange, m.Key, !drop, false, p)
	if err != nil {
		return err
	}
	select {
	case <-confirm.Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	if ch.IsClosed() { // which settles what is open
		if e := <-r.conns[on].end; e != nil {
			return e
		}
		return amqp.ErrClosed
	}
	select {
	case <-r.conns[on].back: // it comes before the confirm
		return polymq.ErrUnroutable
	default:
	}
	if !confirm.Acked() {
		return polymq.ErrRejected
	}
	return nil
}

// table is a header or arguments as the client takes them.
func table(h map[string]any) amqp.Table {
	if h == nil {
		return nil
	}
	t := amqp.Table{}
	for k, v := range h {
		t[k] = field(v)
	}
	return t
}

func (r *raw) disconnect(ctx context.Context, on int) (err error) {
	for s := range r.subs {
		if s.on == on {
			delete(r.subs, s)
		}
	}
	if err := r.conns[on].conn.Close(); err != nil {
		return err
	}
	r.conns[on], err = r.dial()
	return err
}

func (r *raw) close(context.Context) error {
	var errs []error
	for _, c := range r.conns {
		errs = append(errs, c.conn.Close())
	}
	return errors.Join(errs...)
}

func field(v any) any {
	switch v := v.(type) {
	case map[string]any:
		return table(v)
	case []any:
		l := make([]any, len(v))
		for i, e := range v {
			l[i] = field(e)
		}
		return l
	}
	return v
}

// pause waits.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
