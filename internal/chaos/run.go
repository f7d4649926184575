package chaos

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq"
)

// patience is how long what must happen may take on a loaded machine.
const patience = 60 * time.Second

// Options are what a run may be told.
type Options struct {
	Duration time.Duration // when the last fault begins, at the earliest
	Seed     uint64
	liar     bool
	drain    time.Duration // how long nothing may come before what is missing is lost; 0: 20s
	script   []step        // instead of what the seed draws
}

// Run makes a run on a backend, and fails t where a promise was broken. The report
// is complete also then.
func (b *Backend) Run(t testing.TB, o Options) *Report {
	t.Helper()
	dir, err := os.MkdirTemp("", "polymq-chaos-")
	if err != nil {
		t.Fatal(err)
	}
	s := b.start(t)
	turn.Lock()
	over := sync.OnceFunc(turn.Unlock)
	defer over()
	r := &run{site: s, record: newRecord(), dir: dir, clients: newClients(dir, s.url(), o.liar), drain: cmp.Or(o.drain, 4*lease)}
	t.Cleanup(func() { // after a run that was broken off too
		r.burying.Wait()
		r.clients.stop()
		if !t.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
	r.declare()
	r.progress("the start", time.Now())
	time.Sleep(calm)
	r.disturb(o)
	over()
	r.finish()
	r.whole()
	r.verify()
	return r.report()
}

// turn is whose brokers are disturbed: of runs beside each other one at a time. The
// others start theirs, or see to it that everything has come.
var turn sync.Mutex

// calm is the time before the first fault, in which nothing excuses a disorder.
const calm = time.Second

type run struct {
	*site
	record  *record
	clients *clients
	dir     string
	began   time.Time // when everything was declared
	drain   time.Duration
	burying sync.WaitGroup
}

func (r *run) must(err error, what string) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("%s: %s: %v; ledgers and logs are in %s", r.Name, what, err, r.dir)
	}
}

// with opens a connection for f.
func (r *run) with(f func(context.Context, *polymq.Conn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := polymq.Open(ctx, r.url(), nil)
	if err != nil {
		return err
	}
	r.record.countsReturned = conn.Features().CountsReturned
	err = f(ctx, conn)
	if closed := conn.Close(ctx); err == nil {
		err = closed
	}
	return err
}

func (r *run) declare() {
	r.must(r.with(func(ctx context.Context, c *polymq.Conn) error { return c.Declare(ctx, declared) }), "declare")
	r.began = time.Now()
	for _, name := range names {
		r.must(r.clients.start(name), "start a client")
	}
}

// disturb injects faults until the time is over.
func (r *run) disturb(o Options) {
	schedule := newSchedule(o.Seed, r.kinds, len(r.links))
	end := time.Now().Add(o.Duration)
	for i := 0; ; i++ {
		var st step
		switch {
		case o.script != nil:
			if i == len(o.script) {
				return
			}
			st = o.script[i]
		case !schedule.first() && time.Now().After(end):
			return
		default:
			st = schedule.next()
		}
		if st.kind.kills() {
			st.gap = max(st.gap, time.Until(r.began.Add(r.settling)))
		}
		time.Sleep(st.gap)
		f := &fault{step: st}
		r.record.faults = append(r.record.faults, f)
		died := make(chan error, 1)
		r.burying.Go(func() { died <- r.bury(st) })
		r.inject(f)
		r.must(<-died, "start a client again")
		since := f.over
		if since.IsZero() { // a node is away, and is not needed
			since = f.ready
		}
		r.progress(string(st.kind), since)
		r.t.Logf("%6.2fs: %s: served again after %v, and everybody at work after %v", f.begun.Sub(r.began).Seconds(), f.kind, round(f.ready.Sub(f.begun)), round(time.Since(f.begun)))
	}
}

// bury kills the victim of a step and starts it again.
func (r *run) bury(st step) error {
	if st.victim < 0 {
		return nil
	}
	time.Sleep(st.when)
	r.clients.kill(names[st.victim])
	time.Sleep(st.away)
	return r.clients.start(names[st.victim])
}

func (r *run) read() {
	r.must(r.record.read(r.dir), "read the ledgers")
}

// progress waits until every client that runs has got something done after since.
func (r *run) progress(after string, since time.Time) {
	var waiting []string
	slow := time.Now().Add(Bar)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if len(waiting) > 0 && time.Now().After(slow) {
			slow = end
			r.t.Logf("%v need more than %v after %s", waiting, Bar, after)
		}
		r.read()
		waiting = r.clients.names()
		waiting = slices.DeleteFunc(waiting, func(name string) bool {
			t := r.record.client(name)
			return len(t.confirms) > 0 && t.confirms[len(t.confirms)-1].After(since) ||
				len(t.deliveries) > 0 && t.deliveries[len(t.deliveries)-1].After(since)
		})
		if len(waiting) == 0 {
			return
		}
	}
	r.record.violation("%v did nothing for %v after %s", waiting, patience, after)
}

// finish lets everything come to its end.
func (r *run) finish() {
	r.clients.end("p1", "p2")
	var seen int
	for quiet := time.Now(); time.Since(quiet) < r.drain; time.Sleep(200 * time.Millisecond) {
		if r.read(); len(r.record.lost()) == 0 {
			break
		}
		if n := r.record.delivered(); n > seen {
			seen, quiet = n, time.Now()
		}
	}
	r.clients.end("c1", "c2")
	r.read()
	for name, at := range r.clients.ends {
		r.record.client(name).ended = at
	}
	for _, death := range r.clients.deaths {
		r.record.violation("%s", death)
	}
}

// verify looks whether the topology is what was declared.
func (r *run) verify() {
	err := r.with(func(ctx context.Context, c *polymq.Conn) error {
		if err := c.Verify(ctx, declared); err != nil {
			return err
		}
		got, err := c.Topology(ctx)
		if err != nil {
			return err
		}
		if len(got.Queues) != len(declared.Queues) || len(got.Bindings) != len(declared.Bindings) || len(got.Exchanges) != len(declared.Exchanges) {
			return fmt.Errorf("it has become %v", got)
		}
		return nil
	})
	if err != nil {
		r.record.violation("the topology: %v", err)
	}
}
