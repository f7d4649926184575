package redis

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

const (
	dedupWindow     = 20 * time.Second
	maxMessageBytes = 16 << 20
	maxBlock        = time.Second // the longest that a read blocks
	endTime         = time.Second // for telling the server of the end
	delayPrecision  = 50 * time.Millisecond
)

// config is what the URL says.
type config struct {
	addr           string
	user, password string
	db             int
	tls            *tls.Config
	prefix         string // of the namespace's keys, without the closing brace
	lease          time.Duration
	timeout        time.Duration
	pool           int
	memory         bool // durability=memory
}

// store implements emulate.Store.
type store struct {
	cfg     config
	log     *slog.Logger
	onState func(driver.State, error)
	backend string

	client *goredis.Client // calls
	blocks *goredis.Client // a connection for each consumer
	lanes  [laneCount]*lane

	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	mu     sync.Mutex // held to begin something that wg counts
	closed atomic.Bool
	wg     sync.WaitGroup

	watch watch
	clock clock
	// consumers are the *consumer that are open: they hear at once when their queue
	// is deleted here.
	consumers sync.Map
}

var _ emulate.Store = (*store)(nil)

func (c config) options() *goredis.Options {
	o := &goredis.Options{
		Addr:                  c.addr,
		Username:              c.user,
		Password:              c.password,
		DB:                    c.db,
		TLSConfig:             c.tls,
		Protocol:              2,
		MaxRetries:            -1, // its retries would repeat what was done: ours are deduplicated
		DialerRetries:         1,
		DialTimeout:           c.timeout,
		ReadTimeout:           c.timeout,
		WriteTimeout:          c.timeout,
		ContextTimeoutEnabled: true,
		DisableIdentity:       true,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
		PoolSize: c.pool,
	}
	dial := goredis.NewDialer(o)
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			// The pool would write every failure to stderr and then try only
			// once a second; this way the caller has the error and the pace.
			return failedConn{err: err}, nil
		}
		return conn, nil
	}
	return o
}

// failedConn is a connection that was never made.
type failedConn struct {
	net.Conn
	err error
}

func (c failedConn) Read([]byte) (int, error)       { return 0, c.err }
func (c failedConn) Write([]byte) (int, error)      { return 0, c.err }
func (failedConn) Close() error                     { return nil }
func (failedConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (failedConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (failedConn) SetDeadline(time.Time) error      { return nil }
func (failedConn) SetReadDeadline(time.Time) error  { return nil }
func (failedConn) SetWriteDeadline(time.Time) error { return nil }

// open connects once.
func open(ctx context.Context, cfg config, log *slog.Logger, onState func(driver.State, error)) (*store, error) {
	blocks := cfg.options()
	blocks.PoolSize = 1 << 14
	blocks.ReadTimeout += maxBlock
	s := &store{cfg: cfg, log: log, onState: onState, client: goredis.NewClient(cfg.options()), blocks: goredis.NewClient(blocks)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.clock.init(s)
	_, err := s.await(ctx, func() (any, error) {
		if err := s.checkServer(ctx); err != nil {
			return nil, err
		}
		if err := loadLibrary(ctx, s.client); err != nil {
			return nil, err
		}
		return nil, s.clock.read(ctx)
	})
	if err != nil {
		s.stop()
		s.wg.Wait()
		_ = s.client.Close()
		_ = s.blocks.Close()
		if lost(err) {
			return nil, fmt.Errorf("no connection to Redis at %s: %w", cfg.addr, endedBy(ctx, err))
		}
		return nil, mapped(err)
	}
	for i := range s.lanes {
		s.lanes[i] = newLane(s)
	}
	s.watch.init(s)
	s.wg.Go(s.clock.run)
	return s, nil
}

// await runs f on a goroutine of its own, so that the caller hears of ctx's
// end at once: go-redis does not notice it while it waits for an answer. f ends
// at its timeout.
func (s *store) await(ctx context.Context, f func() (any, error)) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	type result struct {
		v   any
		err error
	}
	done := make(chan result, 1)
	s.mu.Lock()
	if s.closed.Load() {
		s.mu.Unlock()
		return nil, driver.ErrClosed
	}
	s.wg.Go(func() {
		v, err := f()
		done <- result{v, err}
	})
	s.mu.Unlock()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.ctx.Done():
		return nil, driver.ErrClosed
	}
}

// retry runs f until the server has answered: also while the connection is
// lost, until ctx ends. f must be harmless when it is done twice, or wrap
// errOnce.
func (s *store) retry(ctx context.Context, f func() (any, error)) (any, error) {
	var last error
	for try := 0; ; try++ {
		if s.closed.Load() {
			return nil, driver.ErrClosed
		}
		if ctx.Err() != nil {
			return nil, ended(ctx, last)
		}
		v, err := s.await(ctx, f)
		switch {
		case err == nil, errors.Is(err, driver.ErrClosed), errors.Is(err, errOnce):
			return v, err
		case ctx.Err() != nil:
			return nil, ended(ctx, last)
		case noFunction(reply(err)):
			if _, e := s.await(ctx, func() (any, error) { return nil, loadLibrary(ctx, s.client) }); e != nil && !lost(e) && !transient(reply(e)) {
				return nil, mapped(e)
			}
		case !lost(err) && !transient(reply(err)):
			return nil, mapped(err)
		}
		last = err
		select {
		case <-time.After(pause(try)):
		case <-ctx.Done():
		case <-s.ctx.Done():
		}
	}
}

// errOnce is wrapped by what must not be tried again.
var errOnce = errors.New("the connection was lost")

// raw is call with an answer that is not read yet.
func (s *store) raw(ctx context.Context, in *sink, args []any) error {
	got, err := s.retry(ctx, func() (any, error) {
		var b sink // of this try alone: await may leave it
		cmd := goredis.NewRawWriteToCmd(ctx, &b, args...)
		if err := s.client.Process(ctx, cmd); err != nil {
			return nil, err
		}
		a := answer{b: b.b}
		return b.b, a.peek()
	})
	if err == nil {
		in.b = got.([]byte)
	}
	return err
}

// call sends a command; see retry.
func (s *store) call(ctx context.Context, args ...any) (any, error) {
	return s.retry(ctx, func() (any, error) { return s.client.Do(ctx, args...).Result() })
}

// pause grows from 10 ms to 1 s.
func pause(try int) time.Duration {
	return min(10*time.Millisecond<<min(try, 7), time.Second)
}

// checkServer refuses servers that are too old.
func (s *store) checkServer(ctx context.Context) error {
	info, err := s.client.Info(ctx, "server").Result()
	if err != nil {
		return err
	}
	s.backend, err = server(info)
	return err
}

// server is the server's name and version, of its answer to INFO.
func server(info string) (string, error) {
	name, version, least := "Redis", field(info, "redis_version"), 7
	if v := field(info, "valkey_version"); v != "" {
		name, version, least = "Valkey", v, 8
	}
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < least {
		return "", fmt.Errorf("%w: %s %s is too old: polymq needs %s %d.0 or newer, for functions and generated stream IDs",
			errors.ErrUnsupported, name, version, name, least)
	}
	return name + " " + version, nil
}

// field is a value of an answer to INFO.
func field(info, name string) string {
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func (s *store) Features() driver.Features {
	return driver.Features{
		Backend: s.backend,
		Support: map[driver.Feature]driver.Support{
			driver.MaxLength: driver.Emulated, driver.Priority: driver.Emulated, driver.SingleActive: driver.Emulated,
		},
		MaxMessageBytes: maxMessageBytes,
		DedupWindow:     dedupWindow,
		Lease:           s.cfg.lease,
		DelayPrecision:  delayPrecision,
		Requeue:         "first",
	}
}

func (s *store) Native() any { return goredis.UniversalClient(s.client) }

func (s *store) Health(ctx context.Context) error {
	if s.closed.Load() {
		return driver.ErrClosed
	}
	_, err := s.await(ctx, func() (any, error) { return nil, s.client.Ping(ctx).Err() })
	if lost(err) && !errors.Is(err, driver.ErrClosed) {
		return fmt.Errorf("no answer from Redis at %s: %w", s.cfg.addr, endedBy(ctx, err))
	}
	return mapped(err)
}

func (s *store) Close(ctx context.Context) error {
	s.mu.Lock()
	was := s.closed.Swap(true)
	if !was {
		s.wg.Go(s.end)
	}
	s.mu.Unlock()
	return s.ended(ctx)
}

// end has all that is under way end; calls do when their connections do.
func (s *store) end() {
	s.stop()
	for _, l := range s.lanes {
		l.close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	s.leave(ctx)
	_, _ = s.client.Close(), s.blocks.Close() // they close but sockets
}

// ended waits for the goroutines, which end at their timeouts at the latest.
func (s *store) ended(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func random(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // it never fails
	return hex.EncodeToString(b)
}
