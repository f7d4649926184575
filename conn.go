package polymq

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// Conn is a connection to one namespace of one broker. Its methods are safe
// for concurrent use. Where a method takes a ctx, the end of ctx ends the
// call with ctx's error; what the call had begun may or may not be done. While
// the connection is lost, calls wait for it until their ctx ends. After Close
// every method returns ErrClosed.
//
// It has no goroutine of its own but those that its driver documents.
type Conn struct {
	dc       driver.Conn
	scheme   string
	features Features
	log      *slog.Logger
	hook     func(State, error)
	refused  error // a required feature is missing

	closed   atomic.Bool
	ended    chan struct{} // closed when Close is done
	closeErr error         // set before ended is closed

	mu       sync.Mutex
	children map[child]struct{} // nil once closing
}

// child is a publisher or subscriber.
type child interface{ Close(context.Context) error }

// QueueInfo is what Inspect sees.
type QueueInfo = driver.QueueInfo

// DeleteOptions are conditions on a deletion; where one does not hold the
// answer is ErrInUse.
type DeleteOptions = driver.DeleteOptions

func newConn(scheme string, opts *Options) *Conn {
	c := &Conn{scheme: scheme, ended: make(chan struct{}), children: map[child]struct{}{}, log: slog.New(slog.DiscardHandler)}
	if opts == nil {
		return c
	}
	if opts.Logger != nil {
		c.log = opts.Logger
	}
	c.hook = opts.OnState
	return c
}

func (c *Conn) serve(dc driver.Conn) {}

func (c *Conn) onState(s State, err error) {}

// Declare makes the exchanges, queues and bindings of t that are missing. What
// stands as declared is left alone; what stands differently is ErrConflict,
// naming the field, and what is illegal ErrInvalid, before anything is made.
// When Declare returns nil, every publish that starts afterwards, from any
// process, is routed by it.
func (c *Conn) Declare(ctx context.Context, t routing.Topology) error { panic("unbuilt") }

// Verify reports what of t is missing (ErrNotFound) or stands differently
// (ErrConflict). It changes nothing.
func (c *Conn) Verify(ctx context.Context, t routing.Topology) error { panic("unbuilt") }

// Bind adds bindings. A missing exchange or queue is ErrNotFound.
func (c *Conn) Bind(ctx context.Context, bs ...routing.Binding) error { panic("unbuilt") }

// Unbind removes bindings. What is not there is no error.
func (c *Conn) Unbind(ctx context.Context, bs ...routing.Binding) error { panic("unbuilt") }

// DeleteQueue removes a queue, its messages and its bindings.
func (c *Conn) DeleteQueue(ctx context.Context, name string, opts *DeleteOptions) error {
	panic("unbuilt")
}

// DeleteExchange removes an exchange and its bindings.
func (c *Conn) DeleteExchange(ctx context.Context, name string, opts *DeleteOptions) error {
	panic("unbuilt")
}

// Topology is what stands now, whoever declared it.
func (c *Conn) Topology(ctx context.Context) (routing.Topology, error) { panic("unbuilt") }

// Inspect counts a queue's messages and subscribers.
func (c *Conn) Inspect(ctx context.Context, queue string) (QueueInfo, error) { panic("unbuilt") }

// Purge removes the ready messages of a queue.
func (c *Conn) Purge(ctx context.Context, queue string) (int, error) { panic("unbuilt") }

// Features is what the backend has and refuses.
func (c *Conn) Features() Features { return c.features }

// Health is nil when the broker answers.
func (c *Conn) Health(ctx context.Context) error { panic("unbuilt") }

// Native is the client library's own handle.
func (c *Conn) Native() any { return c.dc.Native() }

// Close ends the connection.
func (c *Conn) Close(ctx context.Context) error { panic(fmt.Sprint("unbuilt")) }
