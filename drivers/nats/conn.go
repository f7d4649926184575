package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// store is an emulate.Store over one NATS connection.
type store struct {
	cfg   driver.Config
	opt   options
	names names
	calm  time.Duration // fenceCalm; a test may wait for longer

	nc         *natsgo.Conn
	js         jetstream.JetStream
	asks       asks
	version    string
	maxPayload int
	ended      chan struct{} // nats.go has closed

	publisher publisher
	topology  topology
	clock     clock
	swept     swept

	ledgersMu     sync.Mutex
	ledgers       map[string]*ledger // by incarnation
	ledgersClosed bool
	ledgersDone   sync.WaitGroup

	mu        sync.Mutex
	live      context.Context // ends with the current connection; nil while there is none
	lost      context.CancelFunc
	back      chan struct{} // closed when the connection is back or closed
	closed    bool
	consumers map[*consumer]struct{}
	watchers  []func(back bool)
}

func newStore(cfg driver.Config, opt options) *store {
	return &store{
		cfg:       cfg,
		opt:       opt,
		calm:      fenceCalm,
		names:     names{ns: token(opt.vhost)},
		ended:     make(chan struct{}),
		back:      make(chan struct{}),
		ledgers:   map[string]*ledger{},
		consumers: map[*consumer]struct{}{},
	}
}

// headerRoom is kept free of max_payload for the properties of a message.
const headerRoom = 64 << 10

// dedupWindow is what the queues' streams remember message ids for. The
// default of two minutes would be gigabytes of ids at full rate.
const dedupWindow = 20 * time.Second

// roomForBody is how large a message's body may be.
func (s *store) roomForBody() int {
	return min(16<<20, s.maxPayload-min(headerRoom, s.maxPayload/4))
}

func (s *store) Features() driver.Features {
	return driver.Features{
		Backend: "NATS " + s.version,
		Support: map[driver.Feature]driver.Support{
			driver.Confirms:     driver.Native,
			driver.Dedup:        driver.Native,
			driver.Attempts:     driver.Native,
			driver.DelayedNack:  driver.Native,
			driver.Inspect:      driver.Native,
			driver.Purge:        driver.Emulated,
			driver.TTL:          driver.Emulated,
			driver.Expires:      driver.Emulated,
			driver.MaxLength:    driver.Emulated,
			driver.Priority:     driver.Emulated,
			driver.SingleActive: driver.Emulated,
			driver.Exclusive:    driver.Emulated,
			driver.AutoDelete:   driver.Emulated,
		},
		MaxMessageBytes: s.roomForBody(),
		DedupWindow:     dedupWindow,
		Lease:           s.opt.lease,
		Requeue:         "first",
	}
}

// connected begins the life of a connection.
func (s *store) connected() {
	s.mu.Lock()
	if s.closed || s.live != nil {
		s.mu.Unlock()
		return
	}
	s.live, s.lost = context.WithCancel(context.Background())
	close(s.back)
	s.mu.Unlock()
}

func (s *store) up() {
	s.connected()
	s.topology.reconnected()
	s.mu.Lock()
	closed, watchers := s.closed, s.watchers
	s.mu.Unlock()
	if !closed {
		for _, changed := range watchers { // before anything finds a queue gone
			changed(true)
		}
	}
	s.publisher.up()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	for c := range s.consumers {
		signal(c.relink)
	}
	s.mu.Unlock()
	s.relinkLedgers()
	s.cfg.OnState(driver.Connected, nil)
}

func (s *store) down(err error) {
	s.mu.Lock()
	closed := s.closed
	if s.live != nil {
		s.lost()
		s.live, s.lost = nil, nil
		if !closed {
			s.back = make(chan struct{})
		}
	}
	s.mu.Unlock()
	if closed {
		return
	}
	s.publisher.down()
	if err == nil {
		err = natsgo.ErrDisconnected
	}
	s.cfg.OnState(driver.Disconnected, wrap(err))
}

func (s *store) asyncError(sub *natsgo.Subscription, err error) {
	if errors.Is(err, natsgo.ErrPermissionViolation) && s.denied(err) {
		return
	}
	subject := ""
	if sub != nil {
		subject = sub.Subject
	}
	s.cfg.Logger.Warn("nats: asynchronous error", "subject", subject, "error", err)
}

func (s *store) isLive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live != nil
}

// session waits for a connection and returns a context that ends with it.
func (s *store) session(ctx context.Context) (context.Context, error) {
	for {
		s.mu.Lock()
		live, back, closed := s.live, s.back, s.closed
		s.mu.Unlock()
		if closed {
			return nil, driver.ErrClosed
		}
		if live != nil {
			return live, nil
		}
		select {
		case <-back:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the connection: %w", ctx.Err())
		}
	}
}

// do runs a request that may be repeated, again and again until the server has
// answered it or ctx ends.
func (s *store) do(ctx context.Context, what string, request func(ctx context.Context) error) error {
	pause := 5 * time.Millisecond
	for {
		err := s.once(ctx, request)
		if err == nil {
			return nil
		}
		if errors.Is(err, driver.ErrClosed) || ctx.Err() != nil || !passing(err) {
			return fmt.Errorf("%s: %w", what, wrap(err))
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, 500*time.Millisecond)
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", what, ctx.Err(), err)
		}
	}
}

// once runs a request within the life of one connection.
func (s *store) once(ctx context.Context, request func(ctx context.Context) error) error {
	live, err := s.session(ctx)
	if err != nil {
		return err
	}
	attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	defer context.AfterFunc(live, cancel)()
	attempt, done := s.asks.begin(attempt)
	defer done()
	err = denial(attempt, request(attempt))
	if err != nil && ctx.Err() == nil {
		s.mu.Lock()
		closed := s.closed
		s.mu.Unlock()
		if closed {
			return driver.ErrClosed
		}
	}
	return err
}

// flush returns when the server has seen everything sent before.
func (s *store) flush(ctx context.Context) error {
	return s.once(ctx, s.nc.FlushWithContext)
}

func (s *store) Health(ctx context.Context) error {
	return wrap(s.once(ctx, func(ctx context.Context) error {
		_, err := s.js.AccountInfo(ctx)
		return err
	}))
}

// Native is the *nats.Conn.
func (s *store) Native() any { return s.nc }

func (s *store) Close(ctx context.Context) error {
	s.mu.Lock()
	var consumers []*consumer
	for c := range s.consumers {
		consumers = append(consumers, c)
	}
	s.mu.Unlock()
	for _, c := range consumers {
		c.in.Fail(driver.ErrClosed)
		c.Close(ctx)
	}
	s.closeLedgers(ctx)
	s.mu.Lock()
	if s.closed { // a second Close, beside the first
		s.mu.Unlock()
		<-s.ended
		return nil
	}
	s.closed = true
	if s.live != nil {
		s.lost()
		s.live = nil
	} else {
		close(s.back)
	}
	s.mu.Unlock()
	s.publisher.close()
	s.nc.Close()
	select {
	case <-s.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

var (
	_ emulate.Store   = (*store)(nil)
	_ emulate.Drainer = (*consumer)(nil)
	_ emulate.Drainer = (*member)(nil)
)

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
