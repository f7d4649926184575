package emulate

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq/driver"
)

// Promise 9 rests on these. A publisher trusts its lease for clockMargin less
// than LeaseTime, the one who waits for it to end waits as much longer: clocks
// may run apart by a tenth.
const (
	clockMargin = LeaseTime / 20
	leaseValid  = LeaseTime - clockMargin
	leaseOver   = LeaseTime + clockMargin
)

// lease is this connection's right to route by its copy of the topology. The
// broker takes a renewal only while the version it names is current, so that
// whoever changes the topology can wait until no lease names an older one.
//
// The keeper goroutine renews it every third of LeaseTime and at every change,
// from the first publisher on.
type lease struct {
	c      *conn
	client string
	view   atomic.Pointer[view]
	wanted atomic.Bool
	lapse  atomic.Int64  // the renewal, by its time, after which others may have taken us for dead
	kick   chan struct{} // cap 1: the topology changed
	done   chan struct{}

	renewing chan struct{} // cap 1: one renewal at a time

	mu      sync.Mutex
	renewed chan struct{}      // closed at the next renewal
	old     map[string]oldMark // clients whose record was seen not to be current
}

// view is what publishers route by, and when the renewal that allows it was
// sent. The state may be newer than the version that the renewal named, never
// older.
type view struct {
	st   *state
	sent time.Time
}

// oldMark is when a record was first seen to name a version that is not
// current any more. While it names that version it has not been renewed since.
// That holds only as seen from one epoch: from an older one, the record of a
// client that has gone on to a newer one looks just the same.
type oldMark struct {
	version Version
	epoch   string
	since   time.Time
}

// valid counts by the larger of monotonic and wall time: the one stands still
// while a machine sleeps, the other can be set back.
func (v *view) valid(now time.Time) bool {
	return !v.sent.IsZero() && now.Sub(v.sent) < leaseValid && now.UnixNano()-v.sent.UnixNano() < int64(leaseValid)
}

// These break promise 9, to show that its test notices.
var (
	testHookNoLease bool // a lease is valid for ever
	testHookNoWait  bool // nobody waits for the leases of others
)

func (l *lease) init(c *conn) {
	l.c = c
	l.client = strings.ToLower(rand.Text())
	l.kick = make(chan struct{}, 1)
	l.done = make(chan struct{})
	l.renewing = make(chan struct{}, 1)
	l.renewed = make(chan struct{})
	l.old = map[string]oldMark{}
	l.view.Store(&view{st: c.topo.now})
}

// routing is the state to route by for a publish that starts now; nil while
// there is no valid lease, or what was lost with the broker is made anew.
func (l *lease) routing() *state {
	v := l.view.Load()
	if l.c.restorer.pending.Load() { // asked last: it is set before the view that it is about
		return nil
	}
	if v.valid(time.Now()) || testHookNoLease && !v.sent.IsZero() {
		return v.st
	}
	return nil
}

// swap shows publishers a newer state under the lease they have: routing by a
// newer version than the lease names is what those who wait for it wait for.
func (l *lease) swap(st *state) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.view.Store(&view{st, l.view.Load().sent})
}

func (l *lease) changed() { signal(l.kick) }

// start wants the lease, and returns when there is one.
func (l *lease) start(ctx context.Context) error {
	if l.wanted.Load() && l.routing() != nil {
		return nil
	}
	if _, err := l.c.refresh(ctx); err != nil {
		return err
	}
	if err := l.renew(ctx); err != nil {
		return err
	}
	if !l.wanted.Swap(true) {
		signal(l.kick)
		l.c.delays.look(l.c.topo.current())
	}
	return nil
}

// renew renews the lease by the newest version. The table is swapped before
// the renewal names its version: from then on nobody waits for this client.
func (l *lease) renew(ctx context.Context) error {
	select {
	case l.renewing <- struct{}{}:
		defer func() { <-l.renewing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		if l.c.ctx.Err() != nil {
			return driver.ErrClosed
		}
		st := l.c.topo.current() // where it cannot be read, everything is refused by it
		sent := time.Now()
		if l.lapsed(sent) {
			// Others may be deleting what is ours, by this very version.
			l.c.own.loseAll()
		}
		err := l.c.store.RenewLease(ctx, l.client, st.version)
		if errors.Is(err, ErrStale) {
			if _, err := l.c.refresh(ctx); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.view.Store(&view{l.view.Load().st, sent})
		close(l.renewed)
		l.renewed = make(chan struct{})
		l.mu.Unlock()
		return nil
	}
}

// next is closed at the next renewal.
func (l *lease) next() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.renewed
}

// run is the keeper goroutine.
func (l *lease) run() {
	defer close(l.done)
	const every = LeaseTime / 3
	wait := time.NewTimer(every)
	defer wait.Stop()
	failed := 0
	behind := false // the copy of the topology, of a hint
	for {
		select {
		case <-l.c.ctx.Done():
			return
		case <-l.kick:
			behind = true
			if l.c.topo.writes.Load() > 0 {
				continue // what this process writes it takes in when all is written
			}
		case <-wait.C:
		}
		// Without a lease the copy follows all the same, once there is one: it
		// may come to name queues that somebody must look after.
		wanted := l.wanted.Load()
		if !wanted && (!behind || l.c.topo.current().version == (Version{})) {
			wait.Reset(every)
			continue
		}
		ctx, cancel := context.WithTimeout(l.c.ctx, LeaseTime)
		var err error
		if behind {
			_, err = l.c.refresh(ctx)
			behind = err != nil
		}
		if err == nil && wanted {
			err = l.renew(ctx)
		}
		cancel()
		if err == nil {
			failed = 0
			wait.Reset(every)
			continue
		}
		if failed == 0 && l.c.ctx.Err() == nil {
			l.c.cfg.Logger.Warn("the topology lease could not be renewed; trying again", "error", err)
		}
		wait.Reset(backoff(failed))
		failed++
	}
}

// end gives the lease up, so that nobody waits for it. No publish passes any
// more: the connection is closed.
func (l *lease) end(ctx context.Context) {
	if !l.wanted.Load() {
		return
	}
	ctx, cancel := within(ctx, endTime)
	defer cancel()
	select {
	case l.renewing <- struct{}{}: // a renewal on its way must not come after
		defer func() { <-l.renewing }()
	case <-ctx.Done():
		return
	}
	if err := l.c.store.EndLease(ctx, l.client); err != nil {
		l.c.cfg.Logger.Warn("the topology lease could not be ended; it runs out by itself", "error", err)
	}
}

// inForce returns when no client routes by a version older than v: every
// record names v or a later one, or was seen not to so long ago that the lease
// is over.
func (c *conn) inForce(ctx context.Context, v Version) error {
	if c.lease.wanted.Load() {
		if err := c.lease.renew(ctx); err != nil {
			return err
		}
	}
	for delay := time.Millisecond / 4; !testHookNoWait; delay = min(2*delay, 50*time.Millisecond) {
		leases, restarted, err := c.store.Leases(ctx)
		if err != nil {
			return err
		}
		wait := c.lease.overIn(leases, v, time.Now())
		if restarted >= 0 {
			// The broker may have forgotten leases that still run.
			wait = max(wait, leaseOver-restarted)
		}
		if wait <= 0 {
			return nil
		}
		if err := sleep(ctx, c.ctx, min(delay, wait)); err != nil {
			return err
		}
	}
	return nil
}

// overIn is how long from now the last lease on a version older than v can
// still be relied on; 0: there is none.
func (l *lease) overIn(leases []Lease, v Version, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var wait time.Duration
	seen := make(map[string]oldMark, len(l.old))
	for _, r := range leases {
		if r.Version.Epoch == v.Epoch && r.Version.N >= v.N {
			continue
		}
		mark, ok := l.old[r.Client]
		if !ok || mark.version != r.Version || mark.epoch != v.Epoch {
			mark = oldMark{r.Version, v.Epoch, now}
		}
		seen[r.Client] = mark
		wait = max(wait, leaseOver-now.Sub(mark.since))
	}
	l.old = seen
	return wait
}

// sleep waits for d, for the end of ctx, or of the connection.
func sleep(ctx, conn context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-conn.Done():
		return driver.ErrClosed
	}
}

// backoff is the wait after so many failures in a row.
func backoff(failed int) time.Duration {
	return min(10*time.Millisecond<<min(failed, 10), time.Second)
}

const (
	undoTime = 2 * time.Second // for removing what was made in vain
	endTime  = time.Second     // for telling the broker of the end
)
