package polymqtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/drivers/mem"
	"github.com/polymq/polymq/routing"
)

// Env is the environment variable that names the broker to test on.
const Env = "POLYMQ_TEST_URL"

// How long Settled waits, in real and in virtual time, and the end of a test for
// its broker.
const (
	patience        = 2 * time.Minute
	virtualPatience = 7 * 24 * time.Hour
)

// Broker is what a test runs on.
type Broker struct {
	t      *testing.T
	url    string
	real   bool
	name   string // in memory
	rec    *Recorder
	faults *faults
}

// Run calls f with the broker that POLYMQ_TEST_URL names, or with one in memory
// that nobody else uses, under virtual time. What f was given is gone when Run
// returns.
func Run(t *testing.T, f func(t *testing.T, b *Broker)) {
	t.Helper()
	if url := os.Getenv(Env); url != "" {
		f(t, &Broker{t: t, url: url, real: true, rec: NewRecorder()})
		return
	}
	synctest.Test(t, func(t *testing.T) {
		name := "polymqtest-" + strings.ToLower(rand.Text())
		b := &Broker{t: t, url: scheme + "://" + name, name: name, rec: NewRecorder(), faults: newFaults(name)}
		t.Cleanup(func() {
			mem.Remove(name)
			b.faults.end()
		})
		f(t, b)
	})
}

// URL is what Open opens, for programs that open it themselves. Settled knows
// only of connections with Recorder among their observers.
func (b *Broker) URL() string { return b.url }

// Real reports whether it is a broker that POLYMQ_TEST_URL names.
func (b *Broker) Real() bool { return b.real }

// Recorder is that of the connections that Open makes.
func (b *Broker) Recorder() *Recorder { return b.rec }

// Open opens a connection that is recorded, and closed when the test ends. It
// fails the test where it cannot.
func (b *Broker) Open(opts *polymq.Options) *polymq.Conn {
	b.t.Helper()
	var o polymq.Options
	if opts != nil {
		o = *opts
	}
	o.Observers = append([]polymq.Observer{b.rec}, o.Observers...)
	conn, err := polymq.Open(b.t.Context(), b.url, &o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.atEnd(conn.Close)
	return conn
}

// Declare declares t, and deletes at the end of the test what it made. On a real
// broker it fails the test where a queue or an exchange of t stands already,
// since its messages would come into the test, and go with it: give tests a
// namespace of their own, such as a vhost.
func (b *Broker) Declare(conn *polymq.Conn, t routing.Topology) {
	b.t.Helper()
	ctx := b.t.Context()
	if b.real {
		if err := standing(ctx, conn, t); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := conn.Declare(ctx, t); err != nil {
		b.t.Fatal(err)
	}
	b.atEnd(func(ctx context.Context) error {
		if b.real && errors.Is(conn.Health(ctx), polymq.ErrClosed) { // by the test: what it made stands all the same
			again, err := polymq.Open(ctx, b.url, nil)
			if err != nil {
				return err
			}
			defer again.Close(ctx)
			conn = again
		}
		var errs []error
		for _, q := range t.Queues {
			errs = append(errs, conn.DeleteQueue(ctx, q.Name, nil))
		}
		for _, x := range t.Exchanges {
			errs = append(errs, conn.DeleteExchange(ctx, x.Name, nil))
		}
		return errors.Join(errs...)
	})
}

// standing is an error where something of t stands already.
func standing(ctx context.Context, conn *polymq.Conn, t routing.Topology) error {
	stands, err := conn.Topology(ctx)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, q := range stands.Queues {
		there["queue "+q.Name] = true
	}
	for _, x := range stands.Exchanges {
		there["exchange "+x.Name] = true
	}
	for _, q := range t.Queues {
		if there["queue "+q.Name] {
			return fmt.Errorf("the queue %q stands already: delete it, or name a namespace of the tests' own in %s", q.Name, Env)
		}
	}
	for _, x := range t.Exchanges {
		if there["exchange "+x.Name] {
			return fmt.Errorf("the exchange %q stands already: delete it, or name a namespace of the tests' own in %s", x.Name, Env)
		}
	}
	return nil
}

// atEnd does what must be done when the test ends. A connection that the test
// has closed has nothing left to do.
func (b *Broker) atEnd(f func(context.Context) error) {
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := f(ctx); err != nil && !errors.Is(err, polymq.ErrClosed) {
			b.t.Error(err)
		}
	})
}

// Advance lets d pass, and in memory all that it brings about. Under virtual
// time that takes no time; on a real broker it takes d.
func (b *Broker) Advance(d time.Duration) {
	time.Sleep(d)
	if !b.real {
		synctest.Wait()
	}
}

// Settled waits until nothing is left to happen, as Recorder.Settled does, for
// a week of virtual time or two real minutes at most, and fails the test with
// what is missing otherwise.
func (b *Broker) Settled(conn *polymq.Conn, resting ...string) {
	b.t.Helper()
	limit := virtualPatience
	if b.real {
		limit = patience
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), limit)
	defer cancel()
	b.SettledBy(ctx, conn, resting...)
}

// SettledBy is Settled with a limit of the test's own.
func (b *Broker) SettledBy(ctx context.Context, conn *polymq.Conn, resting ...string) {
	b.t.Helper()
	if err := b.rec.Settled(ctx, conn, resting...); err != nil {
		b.t.Fatal(err)
	}
}

// Inject makes what connections of Open do go wrong by the rule, from now on;
// nil ends it. On a real broker it skips the test: its faults are its own.
func (b *Broker) Inject(rule Rule) {
	b.t.Helper()
	if b.real {
		b.t.Skip("faults are injected in memory only: unset " + Env)
	}
	b.faults.set(rule)
}

// Disconnect cuts every connection, as a broken network does: what subscribers
// hold goes back to its queues, and the connections come back. On a real broker
// it skips the test.
func (b *Broker) Disconnect() {
	b.t.Helper()
	if b.real {
		b.t.Skip("connections are cut in memory only: unset " + Env)
	}
	mem.Sever(b.name)
}
