package oracle

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq"
)

// Backends are the drivers that are compared.
var Backends = []string{"amqp", "mem", "nats", "redis"}

// A worker plays scripts, one at a time, each on every backend, in namespaces
// that nobody else uses.
type worker struct {
	raw  *raw
	libs map[string]*library
}

// newWorker connects to what the backends need, and to amqp, which leads some
// scripts. The reference's vhost may be shared; url gives a fresh namespace of a
// scheme.
func newWorker(ctx context.Context, reference string, url func(scheme string) string, backends []string) (*worker, error) {
	w := &worker{libs: map[string]*library{}}
	var err error
	if w.raw, err = openRaw(reference); err != nil {
		return nil, err
	}
	for _, b := range withLeader(backends) {
		u := url(b)
		var peek *raw
		if b == "amqp" {
			if peek, err = openRaw(u); err != nil {
				return nil, err
			}
		}
		if w.libs[b], err = openLibrary(ctx, u, peek); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func withLeader(backends []string) []string {
	if slices.Contains(backends, "amqp") {
		return backends
	}
	return append([]string{"amqp"}, backends...)
}

func (w *worker) close(ctx context.Context) error {
	errs := []error{w.raw.close(ctx)}
	for _, l := range w.libs {
		errs = append(errs, l.close(ctx))
	}
	return errors.Join(errs...)
}

// features are what the drivers declare.
func (w *worker) features() map[string]polymq.Features {
	m := map[string]polymq.Features{}
	for backend, l := range w.libs {
		m[backend] = l.conns[0].Features()
	}
	return m
}

// pace is how patient a run is.
type pace struct {
	quiet    time.Duration // the reference: for how long nothing must have moved
	patience time.Duration // the others: how long to wait for what it had
}

// A finding is a difference that one backend showed.
type finding struct {
	Backend string
	*Difference
}

var runs atomic.Int64

// session is different for each process, so that names and IDs are.
var session = strings.ToLower(rand.Text()[:4])

// play plays a script on the reference and then on the backends.
func (w *worker) play(ctx context.Context, s Script, backends []string, at pace, t *tally) (record []Step, found []finding, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	prefix := fmt.Sprintf("%s%d.", session, runs.Add(1))
	named := renamed(s, prefix)
	record, err = w.lead(ctx, named, at)
	// What a connection shows that breaks is no record, nor is what is seen by one.
	if why := w.revive(); why != nil {
		err = errors.Join(why, err)
	}
	if err != nil {
		return nil, nil, err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, b := range backends {
		if s.Driver && b == "amqp" {
			continue
		}
		if lack := w.libs[b].lacks(s); lack != "" {
			t.add(refused(b, string(lack)), 1)
			continue
		}
		wg.Go(func() {
			began := time.Now()
			d, failed := w.follow(ctx, b, w.libs[b], named, record, at, t)
			t.add("ms "+b, int(time.Since(began).Milliseconds()))
			mu.Lock()
			defer mu.Unlock()
			if failed != nil && err == nil {
				err = fmt.Errorf("%s: %w", b, failed)
			}
			if d != nil {
				d.Got, d.Want, d.What = bare(d.Got, prefix), bare(d.Want, prefix), bare(d.What, prefix)
				found = append(found, finding{b, d})
			}
		})
	}
	wg.Wait()
	if why := w.revive(); why != nil {
		return nil, nil, errors.Join(why, err)
	}
	slices.SortFunc(found, func(a, b finding) int { return strings.Compare(a.Backend, b.Backend) })
	return bareSteps(record, prefix), found, err
}

// errBroken says that RabbitMQ ended a connection that is used without polymq, as
// it does where it is too busy to answer itself in time.
var errBroken = errors.New("RabbitMQ broke a connection")

// revive opens the connections again that RabbitMQ broke, and says why it did.
func (w *worker) revive() error {
	if why := errors.Join(w.raw.revive(), w.libs["amqp"].peek.revive()); why != nil {
		return fmt.Errorf("%w: %w", errBroken, why)
	}
	return nil
}

// leader is the client that a script is compared with, told of its queues.
func (w *worker) leader(s Script) client {
	w.raw.classic = s.Classic
	w.libs["amqp"].class = s.Classic
	if s.Driver {
		return w.libs["amqp"]
	}
	return w.raw
}

// lead plays a named script on the reference.
func (w *worker) lead(ctx context.Context, s Script, at pace) ([]Step, error) {
	c := w.leader(s)
	if l, ok := c.(*library); ok {
		if lack := l.lacks(s); lack != "" {
			return nil, fmt.Errorf("%w: %s", errRefused, lack)
		}
	}
	p := newPlayer(ctx, c, s, w.raw.user, nil)
	p.quiet = at.quiet
	record, err := p.record()
	if clean := w.clean(p); err == nil && clean != nil {
		err = fmt.Errorf("clean up: %w", clean)
	}
	if err != nil {
		return nil, fmt.Errorf("the reference: %w", err)
	}
	return record, nil
}

// follow plays a named script on one client, led by the record.
func (w *worker) follow(ctx context.Context, backend string, c client, s Script, record []Step, at pace, t *tally) (*Difference, error) {
	p := newPlayer(ctx, c, s, w.raw.user, t)
	p.waited = at.patience
	p.quiet = at.quiet
	d := p.follow(record, judge{backend: backend, driver: s.Driver, classic: s.Classic, broker: w.raw.version, known: t})
	if err := w.clean(p); err != nil && d == nil {
		return nil, fmt.Errorf("clean up: %w", err)
	}
	return d, nil
}

func (w *worker) clean(p *player) error {
	err := p.clean()
	if l, ok := p.c.(*library); ok {
		err = errors.Join(err, l.forget(p.ctx))
	}
	return err
}

// bareSteps is a record without the prefix of its names, as far as it is shown
// and compared.
func bareSteps(record []Step, prefix string) []Step {
	record = slices.Clone(record)
	for i := range record {
		s := &record[i]
		s.text = bare(s.describe(), prefix)
	}
	return record
}

// errRefused says that the reference does not have what the script is about.
var errRefused = errors.New("the reference refuses a feature")

// refused is what scripts are counted as that a backend cannot play.
func refused(backend, feature string) string { return backend + " refuses " + feature }
