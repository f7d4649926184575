package polymq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// RequesterOptions are the options of a requester. nil means the defaults.
type RequesterOptions struct {
	// Window is how many requests may be on their way to the broker at once,
	// as in PublisherOptions. Calls that wait for their reply do not count.
	// Default: 256.
	Window int
	// Middleware wraps the publishing of requests, the first being the
	// outermost. Default: none.
	Middleware []PublishMiddleware
}

// Requester publishes requests to one exchange and waits for their replies,
// which come to a temporary queue of its own and are told apart by their
// CorrelationID. It is safe for concurrent use, and any number of calls can wait
// at once. It has one goroutine, and what a publisher and a subscriber have.
//
// It serves with any peer that replies, by the default exchange, to the queue
// that ReplyTo names, with the CorrelationID of the request.
type Requester struct {
	conn  *Conn
	pub   *Publisher
	sub   *Subscriber
	life  context.Context // of listen
	end   context.CancelFunc
	ended chan struct{} // listen has

	mu    sync.Mutex
	calls map[string]chan *Message // closed when there will be no reply
	err   error                    // why there will be none to any call

	ending ending
}

// replyBatch is how many replies are taken at once.
const replyBatch = 64

// Requester makes a requester to an exchange; "" is the default exchange, which
// routes to the queue that Message.Key names. Like SubscribeTemporary it makes a
// queue, so make one and keep it. Close it when it is no longer used.
func (c *Conn) Requester(ctx context.Context, exchange string, opts *RequesterOptions) (*Requester, error) {
	r, err := c.requester(ctx, exchange, orZero(opts))
	if err != nil {
		return nil, c.wrap("requester", exchange, err)
	}
	return r, nil
}

func (c *Conn) requester(ctx context.Context, exchange string, opts RequesterOptions) (*Requester, error) {
	pub, err := c.Publisher(ctx, exchange, &PublisherOptions{Window: opts.Window, Middleware: opts.Middleware})
	if err != nil {
		return nil, err
	}
	sub, err := c.SubscribeTemporary(ctx, &SubscriberOptions{Prefetch: 4 * replyBatch})
	if err != nil {
		_ = pub.Close(ctx) // nothing is on its way
		return nil, err
	}
	r := &Requester{conn: c, pub: pub, sub: sub, ended: make(chan struct{}), calls: map[string]chan *Message{}, ending: newEnding()}
	r.life, r.end = context.WithCancel(context.Background())
	sub.sources.anew = r.lose
	go r.listen()
	if err := c.adopt(ctx, r); err != nil {
		return nil, err
	}
	return r, nil
}

// String names the exchange.
func (r *Requester) String() string {
	return fmt.Sprintf("polymq.Requester(exchange %q)", r.pub.exchange)
}

// GoString is String.
func (r *Requester) GoString() string { return r.String() }

// Call publishes a request and waits for its reply. The end of ctx is the
// timeout. Without a deadline Call waits for as long as it takes. Set TTL on a
// request that nobody is to handle once nobody waits for it.
//
// m is not changed. Its ReplyTo and CorrelationID are Call's to set: where one
// is not empty, that is ErrInvalid. The error says what is known of the request:
//
//	*RemoteError              it was handled; this is the other side's answer
//	ErrNoReply                it is stored; ctx ended, with its error, the
//	                          requester closed, with ErrClosed, or the
//	                          connection was lost before a reply came
//	ErrUnconfirmed            ctx or the connection ended before it was known
//	                          to be stored
//	ErrUnroutable and others  those of Publisher.Publish; with ErrClosed or
//	                          ctx's error alone it was not sent
//
// When the connection is lost, the queue for replies ends with it, as every
// exclusive queue does, and comes back empty: calls that waited end with
// ErrNoReply once it is back, for their reply may have been lost, and calls
// from then on work. Nothing is sent a second time once the broker has confirmed
// it, so whoever tries again decides that the request bears it. Still, a request
// can be delivered twice, as any message can; the first reply is the one that
// counts. A reply that nobody waits for any more is dropped, with a line in the
// log.
func (r *Requester) Call(ctx context.Context, m *Message) (*Message, error) {
	reply, err := r.call(ctx, m)
	if err != nil {
		return nil, r.conn.wrap("call", r.pub.exchange, err)
	}
	return reply, nil
}

func (r *Requester) call(ctx context.Context, m *Message) (*Message, error) {
	switch {
	case m == nil:
		return nil, invalid("the message is nil")
	case m.ReplyTo != "" || m.CorrelationID != "":
		return nil, invalid("ReplyTo and CorrelationID: leave them empty: a call sets them")
	}
	request := *m
	request.ReplyTo, request.CorrelationID = r.sub.Queue(), newID()
	replies, err := r.expect(request.CorrelationID)
	if err != nil {
		return nil, err
	}
	defer r.forget(request.CorrelationID)
	if err := r.pub.Publish(ctx, &request); err != nil {
		if reply := arrived(replies); reply != nil {
			return result(reply)
		}
		if failed, ok := errors.AsType[*PublishError](err); ok {
			err = failed.Failures[0].Err
		}
		return nil, err
	}
	select {
	case reply, ok := <-replies:
		if !ok {
			return nil, r.none()
		}
		return result(reply)
	case <-ctx.Done():
		if reply := arrived(replies); reply != nil {
			return result(reply)
		}
		return nil, fmt.Errorf("%w: %w", ErrNoReply, ended(ctx))
	}
}

// arrived is the reply that is here, whatever else has happened; nil: none is.
func arrived(replies <-chan *Message) *Message {
	select {
	case reply := <-replies:
		return reply
	default:
		return nil
	}
}

// none is why there will be no reply to a call that waited for it.
func (r *Requester) none() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Errorf("%w: %w", ErrNoReply, first(r.err, errReplyLost))
}

// result is what a reply means.
func result(reply *Message) (*Message, error) {
	if text, ok := reply.Header.String(HeaderError); ok {
		return nil, &RemoteError{Text: text, Reply: reply}
	}
	return reply, nil
}

func (r *Requester) expect(id string) (<-chan *Message, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	replies := make(chan *Message, 1)
	r.calls[id] = replies
	return replies, nil
}

func (r *Requester) forget(id string) {
	r.mu.Lock()
	delete(r.calls, id)
	r.mu.Unlock()
}

// listen hands replies to the calls until the subscriber ends.
func (r *Requester) listen() {
	defer close(r.ended)
	settle := settler{base: r.life}
	defer settle.end()
	for {
		ds, err := r.sub.ReceiveBatch(r.life, replyBatch)
		if err != nil {
			r.fail(err)
			return
		}
		for _, d := range ds {
			r.hand(d.Message)
			// Where that fails, the reply comes again and is one too many.
			_ = d.Ack(settle.ctx())
		}
	}
}

func (r *Requester) hand(reply *Message) {
	r.mu.Lock()
	replies, waiting := r.calls[reply.CorrelationID]
	delete(r.calls, reply.CorrelationID)
	r.mu.Unlock()
	if waiting {
		replies <- reply
		return
	}
	r.conn.log.LogAttrs(r.life, slog.LevelInfo, "polymq: dropped a reply that nobody waits for",
		slog.String("exchange", r.pub.exchange), slog.String("correlation", reply.CorrelationID), slog.String("id", reply.ID))
}

// fail ends the calls that wait, and those to come, with err; the first counts.
func (r *Requester) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
		r.forsake()
	}
}

// lose ends the calls that wait: their replies may have been in the queue that
// another has just taken the place of.
func (r *Requester) lose() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forsake()
}

// forsake is called with mu held.
func (r *Requester) forsake() {
	for _, replies := range r.calls {
		close(replies)
	}
	clear(r.calls)
}

var errReplyLost = errors.New("the connection was lost, and the reply may have been lost with it")

// Close ends the calls that wait with ErrClosed, and deletes the queue. It is
// idempotent: further calls wait for the first and return its result.
func (r *Requester) Close(ctx context.Context) error {
	err := r.ending.do(ctx, func() error {
		defer r.conn.forget(r)
		r.fail(ErrClosed)
		r.end()
		<-r.ended
		return first(r.sub.Close(ctx), r.pub.Close(ctx))
	})
	return r.conn.wrap("close", r.pub.exchange, err)
}

// TypedRequester calls with values of one type and gets those of another. It is
// safe for concurrent use.
type TypedRequester[Req, Resp any] struct {
	r     *Requester
	codec Codec
}

// NewTypedRequester makes a requester of values out of one of messages. It is a
// plain pair of the two, and ends with r. A nil codec is JSON.
func NewTypedRequester[Req, Resp any](r *Requester, codec Codec) *TypedRequester[Req, Resp] {
	return &TypedRequester[Req, Resp]{r, codec}
}

// Call encodes v, calls with it as Requester.Call does, and decodes the reply. m
// has the routing key and what else the request is to have. A value that cannot
// be encoded is ErrInvalid, a reply that cannot be decoded ErrUndecodable.
func (t *TypedRequester[Req, Resp]) Call(ctx context.Context, m Message, v Req) (Resp, error) {
	var result Resp
	err := encode(&m, v, t.codec)
	if err == nil {
		var reply *Message
		if reply, err = t.r.call(ctx, &m); err == nil {
			result, err = Decode[Resp](reply, t.codec)
		}
	}
	return result, t.r.conn.wrap("call", t.r.pub.exchange, err)
}
