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
	"syscall"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

const (
	dedupWindow     = 20 * time.Second
	maxMessageBytes = 16 << 20
	maxBlock        = time.Second // of config.block
	endTime         = time.Second // for telling the server of the end
	delayPrecision  = 50 * time.Millisecond
)

// config is what the URL says.
type config struct {
	addrs    []string // of the server, of sentinels, or of some of a cluster's nodes
	find     finder   // nil: the server stands alone
	user     string
	password driver.Secret
	db       int
	tls      *tls.Config
	safe     safety
	via      func(addr string) string // the address to dial for one; nil: itself

	// What the sentinels call the server, and who asks them.
	master, sentinelUser string
	sentinelPassword     driver.Secret

	prefix  string // of the namespace's keys, without the closing brace
	lease   time.Duration
	timeout time.Duration
	pool    int
	memory  bool          // durability=memory
	block   time.Duration // the longest that a read blocks
}

// store implements emulate.Store.
type store struct {
	cfg     config
	log     *slog.Logger
	onState func(driver.State, error)
	backend string

	servers servers
	lanes   []*lane
	native  native

	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	mu     sync.Mutex // held to begin something that wg counts
	closed atomic.Bool
	wg     sync.WaitGroup

	unsure atomic.Bool // a change of the topology may not be safe
	full   atomic.Bool // the server took no write, the last time

	watch watch
	clock clock
	// consumers are the *consumer that are open: they hear at once when their queue
	// is deleted here.
	consumers sync.Map
}

var _ emulate.Store = (*store)(nil)

// open connects once.
func open(ctx context.Context, cfg config, log *slog.Logger, onState func(driver.State, error)) (*store, error) {
	s := &store{cfg: cfg, log: log, onState: onState}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.clock.init(s)
	s.servers.init(s)
	_, err := s.await(ctx, func() (any, error) { return nil, s.begin(ctx) })
	if err != nil {
		s.stop()
		s.wg.Wait()
		s.servers.close()
		if lost(err) {
			advice := ""
			if _, unknown := errors.AsType[*net.DNSError](err); !unknown && !errors.Is(err, syscall.ECONNREFUSED) {
				advice = "is this its port, with TLS or without as the scheme says? "
			}
			return nil, fmt.Errorf("no connection to Redis at %s: %s%w", s.where(), advice, endedBy(ctx, err))
		}
		return nil, mapped(err)
	}
	for range min(laneCount*len(s.servers.first.nodes()), maxLanes) {
		s.lanes = append(s.lanes, newLane(s))
	}
	s.watch.init(s)
	s.wg.Go(s.clock.run)
	if cfg.find != nil {
		s.wg.Go(s.servers.run)
	}
	return s, nil
}

// begin finds the servers and makes sure of what they must have.
func (s *store) begin(ctx context.Context) error {
	if err := s.servers.look(ctx); err != nil {
		return err
	}
	first, err := s.at(s.namespace())
	if err != nil {
		return err
	}
	for _, n := range s.servers.first.nodes() {
		err := s.prepare(ctx, n)
		// What holds but some of the queues may be down, or on its way back.
		if err != nil && (n == first || !lost(err) && !transient(reply(err))) {
			return err
		}
	}
	return s.clock.read(ctx)
}

// prepare checks a server and loads the library there.
func (s *store) prepare(ctx context.Context, n *node) error {
	if err := s.checkServer(ctx, n); err != nil {
		return err
	}
	return loadLibrary(ctx, n.client)
}

// where is the addresses of the URL, for errors.
func (s *store) where() string { return strings.Join(s.cfg.addrs, ", ") }

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

// retry runs f with the node that holds the key, until the server has answered:
// also while the connection is lost, until ctx ends. f must be harmless when it is
// done twice, or wrap errOnce.
func (s *store) retry(ctx context.Context, key string, f func(*node) (any, error)) (any, error) {
	var last error
	for try := 0; ; try++ {
		if s.closed.Load() {
			return nil, driver.ErrClosed
		}
		if ctx.Err() != nil {
			return nil, ended(ctx, last)
		}
		var v any
		n, err := s.at(key)
		if err == nil {
			v, err = s.await(ctx, func() (any, error) { return f(n) })
		}
		switch {
		case err == nil, errors.Is(err, driver.ErrClosed), errors.Is(err, errOnce):
			return v, err
		case full(reply(err)):
			s.full.Store(true)
			if ctx.Err() != nil {
				return nil, ended(ctx, err)
			}
		case ctx.Err() != nil:
			return nil, ended(ctx, last)
		case noFunction(reply(err)):
			if _, e := s.await(ctx, func() (any, error) { return nil, loadLibrary(ctx, n.client) }); e != nil && !lost(e) && !transient(reply(e)) {
				return nil, mapped(e)
			}
		case !lost(err) && !transient(reply(err)):
			return nil, mapped(err)
		default:
			s.servers.hurry()
		}
		// A try that ctx's deadline cut short says less than the one before.
		if last == nil || !errors.Is(endedBy(ctx, err), context.DeadlineExceeded) {
			last = err
		}
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
func (s *store) raw(ctx context.Context, key string, args ...any) (answer, error) {
	got, err := s.retry(ctx, key, func(n *node) (any, error) {
		var whole sink
		if err := n.client.Process(ctx, goredis.NewRawWriteToCmd(ctx, &whole, args...)); err != nil {
			return nil, err
		}
		a := answer{b: whole.b}
		return a, a.peek()
	})
	if err != nil {
		return answer{}, err
	}
	return got.(answer), nil
}

// call sends a command about the key; see retry.
func (s *store) call(ctx context.Context, key string, args ...any) (any, error) {
	return s.retry(ctx, key, func(n *node) (any, error) { return n.client.Do(ctx, args...).Result() })
}

// fcall calls a function.
func (s *store) fcall(ctx context.Context, fn, key string, args ...any) (any, error) {
	return s.call(ctx, key, append([]any{"FCALL", fn, "1", key}, args...)...)
}

// pause grows from 10 ms to 1 s.
func pause(try int) time.Duration {
	return min(10*time.Millisecond<<min(try, 7), time.Second)
}

// checkServer refuses servers that cannot do what the URL wants.
func (s *store) checkServer(ctx context.Context, n *node) error {
	info, err := n.client.Info(ctx, "server").Result()
	if err != nil {
		return err
	}
	name, err := server(info)
	if err != nil {
		return err
	}
	s.backend = name
	switch mode := field(info, "redis_mode"); {
	case mode == "sentinel":
		return fmt.Errorf("%w: %s is a sentinel: the URL's scheme for it is redis+sentinel", errors.ErrUnsupported, n.addr)
	case mode == "cluster" && s.cfg.find == nil:
		return fmt.Errorf("%w: %s belongs to a Redis Cluster: the URL's scheme for it is redis+cluster", errors.ErrUnsupported, n.addr)
	}
	return s.cfg.safe.check(ctx, n, info)
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

func (s *store) Health(ctx context.Context) error {
	if s.closed.Load() {
		return driver.ErrClosed
	}
	n, err := s.at(s.namespace())
	if err == nil {
		_, err = s.await(ctx, func() (any, error) { return nil, n.client.Ping(ctx).Err() })
	}
	if lost(err) && !errors.Is(err, driver.ErrClosed) {
		return fmt.Errorf("no answer from Redis at %s: %w", s.where(), endedBy(ctx, err))
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
		l.interrupt()
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	s.leave(ctx)
	s.servers.close()
	s.native.close()
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
