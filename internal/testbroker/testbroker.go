package testbroker

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq/internal/leak"
)

// Main runs the tests of a package, stops the brokers that they started, and fails
// where a goroutine is left (package leak). It is the whole body of TestMain and
// does not return.
func Main(m *testing.M) {
	code := m.Run()
	shared.stop()
	os.Exit(leak.Check(code))
}

// URL returns the URL of a fresh, empty namespace on the run's broker for the
// scheme "amqp", "nats", "redis" or "mem". It is removed, with all that is in
// it, when t ends. Under -short it skips t, except for mem. Safe for concurrent
// use.
func URL(t testing.TB, scheme string) string {
	t.Helper()
	if scheme == "mem" {
		return "mem://" + newName()
	}
	k := kindOf(t, scheme)
	if testing.Short() {
		t.Skipf("-short: %s is left out", k.title())
	}
	base, err := shared.url(k)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	name := newName()
	url, err := k.fresh(ctx, base, name)
	if err != nil {
		t.Fatalf("make a namespace in %s: %v", k.title(), err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := k.remove(ctx, base, name); err != nil {
			t.Errorf("remove the namespace %s from %s: %v", name, k.title(), err)
		}
	})
	return url
}

// A kind is one sort of broker.
type kind interface {
	scheme() string
	title() string
	// launch starts the processes of s, in order; they are killed in the
	// reverse order.
	launch(s *server) error
	// ready is nil once s serves.
	ready(ctx context.Context, s *server) error
	// url addresses s; its namespace is the default one. secureURL does with TLS.
	url(s *server) string
	secureURL(s *server) string
	// fresh makes the namespace name in the broker at base and returns its
	// URL; remove takes all of it away.
	fresh(ctx context.Context, base, name string) (string, error)
	remove(ctx context.Context, base, name string) error
}

var kinds = []kind{rabbitMQ{}, nats{}, redis{}}

func kindOf(t testing.TB, scheme string) kind {
	for _, k := range kinds {
		if k.scheme() == scheme {
			return k
		}
	}
	t.Helper()
	t.Fatalf("testbroker: no broker for the scheme %q", scheme)
	return nil
}

// newName is a name that no two tests share, made of letters and digits so
// that every broker holds it as it is.
func newName() string { return "t" + strings.ToLower(rand.Text()[:16]) }

// testURL and runURL are the environment variables that name a broker.
func testURL(k kind) string { return "POLYMQ_TEST_" + strings.ToUpper(k.scheme()) + "_URL" }
func runURL(k kind) string  { return "POLYMQ_RUN_" + strings.ToUpper(k.scheme()) + "_URL" }

// shared holds the brokers that this process started for all of its tests.
var shared sharedBrokers

type sharedBrokers struct {
	mu      sync.Mutex
	started map[string]*sharedBroker
}

type sharedBroker struct {
	once   sync.Once
	server *server
	err    error
}

func (b *sharedBrokers) url(k kind) (string, error) {
	for _, name := range []string{testURL(k), runURL(k)} {
		if url := os.Getenv(name); url != "" {
			return url, nil
		}
	}
	b.mu.Lock()
	one := b.started[k.scheme()]
	if one == nil {
		if b.started == nil {
			b.started = make(map[string]*sharedBroker)
		}
		one = new(sharedBroker)
		b.started[k.scheme()] = one
	}
	b.mu.Unlock()
	one.once.Do(func() { one.server, one.err = startServer(k, Setup{}, nil) })
	if one.err != nil {
		return "", one.err
	}
	return k.url(one.server), nil
}

func (b *sharedBrokers) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, one := range b.started {
		if one.server != nil {
			one.server.remove()
		}
	}
	b.started = nil
}

// Run starts the brokers that the environment does not name, and returns
// variables for the environment of test processes that are to share them. Stop
// stops them.
func Run() (env []string, stop func(), err error) {
	var brokers sharedBrokers
	urls, errs := make([]string, len(kinds)), make([]error, len(kinds))
	var wg sync.WaitGroup
	for i, k := range kinds {
		wg.Go(func() { urls[i], errs[i] = brokers.url(k) })
	}
	wg.Wait()
	for i, k := range kinds {
		if errs[i] != nil {
			brokers.stop()
			return nil, nil, fmt.Errorf("start %s: %w", k.title(), errs[i])
		}
		env = append(env, runURL(k)+"="+urls[i])
	}
	return env, brokers.stop, nil
}
