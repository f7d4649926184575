package polymq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

var registered = newFake()

func init() { polymq.Register("faketest", registered) }

func TestOpen(t *testing.T) {
	var states []polymq.State
	var log bytes.Buffer
	c, err := polymq.Open(t.Context(), "FakeTest://user:secret@host/", &polymq.Options{
		Logger:  slog.New(slog.NewTextHandler(&log, nil)),
		OnState: func(s polymq.State, err error) { states = append(states, s) },
		Require: []polymq.Feature{polymq.FeatureTTL},
	})
	if err != nil {
		t.Fatal(err)
	}
	registered.cfg.OnState(polymq.StateConnected, nil)
	registered.cfg.OnState(polymq.StateDisconnected, io.EOF)
	if !slices.Equal(states, []polymq.State{polymq.StateConnected, polymq.StateDisconnected}) {
		t.Error(states)
	}
	if s := log.String(); !strings.Contains(s, "disconnected") || !strings.Contains(s, "EOF") || strings.Contains(s, "secret") {
		t.Error(s)
	}
	if c.Native() != "native" || c.Features().Backend != "fake 1" {
		t.Error("Native, Features")
	}
	delete(c.Features().Support, driver.TTL)
	if !c.Features().Has(polymq.FeatureTTL) {
		t.Error("a caller's change of Features changed the connection's")
	}
	if !slices.Contains(polymq.Schemes(), "faketest") {
		t.Error(polymq.Schemes())
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestPrinted: what a program holds can be printed while it is used, and says what it
// is, without the URL.
func TestPrinted(t *testing.T) {
	c, err := polymq.Open(t.Context(), "FakeTest://user:secret@host/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	p, err := c.Publisher(t.Context(), "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Subscriber(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	var using sync.WaitGroup
	for range 4 {
		using.Go(func() {
			for range 20 {
				if p, err := c.Publisher(t.Context(), "y", nil); err == nil {
					_ = p.Close(t.Context())
				}
			}
		})
	}
	for range 20 {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			got := fmt.Sprintf(verb+" "+verb+" "+verb, c, p, s)
			if want := `polymq.Conn(faketest) polymq.Publisher(exchange "x") polymq.Subscriber(queue "q")`; got != want {
				t.Fatalf("%s: %s, want %s", verb, got, want)
			}
		}
	}
	using.Wait()
}

// lostAtOnce is a driver whose connection is lost before Open has returned.
type lostAtOnce struct{ *fake }

func (l lostAtOnce) Open(ctx context.Context, u *driver.URL, cfg driver.Config) (driver.Conn, error) {
	cfg.OnState(polymq.StateDisconnected, io.EOF)
	return l.fake.Open(ctx, u, cfg)
}

func init() { polymq.Register("lostatonce", lostAtOnce{newFake()}) }

// The first state is that it is connected, whatever came about meanwhile.
func TestOpenTellsConnectedFirst(t *testing.T) {
	var states []polymq.State
	c, err := polymq.Open(t.Context(), "lostatonce://host/", &polymq.Options{OnState: func(s polymq.State, _ error) { states = append(states, s) }})
	if err == nil {
		err = c.Close(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if want := []polymq.State{polymq.StateConnected, polymq.StateDisconnected, polymq.StateClosed}; !slices.Equal(states, want) {
		t.Errorf("told %v, want %v", states, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		url  string
		opts *polymq.Options
		is   error
		text string
	}{
		"no scheme":      {url: "localhost", is: polymq.ErrInvalid, text: "scheme"},
		"bad port":       {url: "faketest://u:secret@h:x", is: polymq.ErrInvalid, text: "port"},
		"unknown option": {url: "faketest://u:secret@h?colour=blue", text: "colour"},
		"known scheme":   {url: "valkeys://u:secret@h", is: errors.ErrUnsupported, text: `import _ "github.com/polymq/polymq/drivers/redis"`},
		"unknown scheme": {url: "kafka://u:secret@h", is: errors.ErrUnsupported, text: "amqp, amqps"},
		"feature":        {url: "faketest://u:secret@h", opts: &polymq.Options{Require: []polymq.Feature{"time-travel"}}, is: errors.ErrUnsupported, text: "time-travel"},
		"ctx":            {ctx: ended, url: "faketest://u:secret@h", is: context.Canceled, text: "faketest"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := c.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			registered.closed.Store(false)
			conn, err := polymq.Open(ctx, c.url, c.opts)
			if err == nil || conn != nil {
				t.Fatal("it opened")
			}
			if c.is != nil {
				wantIs(t, err, c.is)
			}
			var e *polymq.Error
			if !errors.As(err, &e) || e.Op != "open" {
				t.Errorf("%#v", err)
			}
			if !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v", err)
			}
			if name == "feature" && !registered.closed.Load() {
				t.Error("the connection was left open")
			}
		})
	}
}

func TestRegisterPanics(t *testing.T) {
	for name, d := range map[string]driver.Driver{"nilscheme": nil, "faketest": newFake()} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			polymq.Register(name, d)
		}()
	}
}

func TestURLFromEnv(t *testing.T) {
	t.Setenv("POLYMQ_URL", "")
	if u := polymq.URLFromEnv("mem://"); u != "mem://" {
		t.Error(u)
	}
	t.Setenv("POLYMQ_URL", "nats://h")
	if u := polymq.URLFromEnv("mem://"); u != "nats://h" {
		t.Error(u)
	}
}

// every calls each method that has an error.
func every(ctx context.Context, c *polymq.Conn) map[string]error {
	errs := map[string]error{
		"declare":         c.Declare(ctx, routing.Topology{}),
		"verify":          c.Verify(ctx, routing.Topology{}),
		"bind":            c.Bind(ctx, routing.Binding{Exchange: "x", Queue: "q"}),
		"unbind":          c.Unbind(ctx, routing.Binding{Exchange: "x", Queue: "q"}),
		"delete queue":    c.DeleteQueue(ctx, "q", nil),
		"delete exchange": c.DeleteExchange(ctx, "x", nil),
		"health":          c.Health(ctx),
	}
	_, errs["topology"] = c.Topology(ctx)
	_, errs["inspect"] = c.Inspect(ctx, "q")
	_, errs["purge"] = c.Purge(ctx, "q")
	_, errs["publisher"] = c.Publisher(ctx, "x", nil)
	_, errs["subscriber"] = c.Subscriber(ctx, "q", nil)
	return errs
}

func TestErrorsOfEveryCall(t *testing.T) {
	native := errors.New("native")
	f := newFake()
	f.err = errors.Join(driver.ErrPermission, native)
	c := connect(t, f)
	for op, err := range every(t.Context(), c) {
		wantIs(t, err, polymq.ErrPermission)
		wantIs(t, err, native)
		e, ok := err.(*polymq.Error)
		if !ok || e.Op != op {
			t.Errorf("%s: %#v", op, err)
			continue
		}
		if errors.As(e.Err, &e) {
			t.Errorf("%s is wrapped twice: %v", op, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	n := len(f.calls)
	for _, err := range every(ended, c) {
		wantIs(t, err, context.Canceled)
	}
	missing := polymq.NewConn(f, &polymq.Options{Require: []polymq.Feature{"time-travel"}})
	for _, err := range every(t.Context(), missing) {
		wantIs(t, err, errors.ErrUnsupported)
	}
	_ = c.Close(t.Context())
	for _, err := range every(t.Context(), c) {
		wantIs(t, err, polymq.ErrClosed)
	}
	if len(f.calls) != n+1 {
		t.Errorf("the driver was called: %q", f.calls[n:])
	}
}

func TestArgumentsAreChecked(t *testing.T) {
	f := newFake()
	c := connect(t, f)
	ctx := t.Context()
	bad := routing.Topology{Queues: []routing.Queue{{Name: ""}, {Name: "a\n"}}}
	_, inspect := c.Inspect(ctx, "a\n")
	_, purge := c.Purge(ctx, "")
	for i, err := range []error{
		c.Declare(ctx, bad), c.Verify(ctx, bad), c.Bind(ctx, routing.Binding{}), c.Unbind(ctx, routing.Binding{Exchange: "x"}),
		c.DeleteQueue(ctx, "", nil), c.DeleteExchange(ctx, "", nil), c.DeleteExchange(ctx, "amq.topic", nil),
		c.DeleteExchange(ctx, "x", &polymq.DeleteOptions{IfEmpty: true}), inspect, purge,
	} {
		if !errors.Is(err, polymq.ErrInvalid) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if err := c.Bind(ctx); err != nil {
		t.Error(err)
	}
	f.features.Support[driver.MaxAttempts] = driver.Refused
	c = connect(t, f)
	wantIs(t, c.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "q", MaxAttempts: 2}}}), errors.ErrUnsupported)
	if len(f.calls) != 0 {
		t.Errorf("the driver was called: %q", f.calls)
	}
	if err := c.DeleteQueue(ctx, "q", &polymq.DeleteOptions{IfEmpty: true}); err != nil || f.calls[0] != "delete queue q {false true}" {
		t.Errorf("%v %q", err, f.calls)
	}
}

func TestConnCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.publish = f.hold
		c := polymq.NewConn(f, nil)
		p, err := c.Publisher(t.Context(), "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.Subscriber(t.Context(), "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		gone, err := c.Subscriber(t.Context(), "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := gone.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		publish, receive := make(chan error, 1), make(chan error, 1)
		go func() { publish <- p.Publish(t.Context(), &polymq.Message{}) }()
		go func() {
			_, err := s.Receive(t.Context())
			receive <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		began := time.Now()
		for range 3 {
			wg.Go(func() {
				if err := c.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Close: %v", err)
				}
			})
		}
		wg.Wait()
		if time.Since(began) != time.Second {
			t.Error("Close did not end with its ctx")
		}
		wantIs(t, <-publish, polymq.ErrUnconfirmed)
		wantIs(t, <-receive, polymq.ErrClosed)
		wantIs(t, p.Publish(t.Context(), &polymq.Message{}), polymq.ErrClosed)
		closes := slices.DeleteFunc(slices.Clone(f.calls), func(s string) bool { return !strings.HasPrefix(s, "close") })
		slices.Sort(closes)
		if want := []string{"close", "close publisher", "close subscriber", "close subscriber"}; !slices.Equal(closes, want) {
			t.Errorf("%q", closes)
		}
		if f.calls[len(f.calls)-1] != "close" {
			t.Error("the connection was closed before its children")
		}
	})
}

// What is made while the connection is being closed must not outlive it.
func TestConnClosesWhatComesLate(t *testing.T) {
	for _, kind := range []string{"publisher", "subscriber"} {
		f := newFake()
		c := connect(t, f)
		f.during = func() {
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		var err error
		if kind == "publisher" {
			_, err = c.Publisher(t.Context(), "x", nil)
		} else {
			_, err = c.Subscriber(t.Context(), "q", nil)
		}
		wantIs(t, err, polymq.ErrClosed)
		if !slices.Contains(f.calls, "close "+kind) {
			t.Errorf("the %s was left open: %q", kind, f.calls)
		}
	}
}

func TestErrorText(t *testing.T) {
	for want, err := range map[string]error{
		`polymq: close: closed`:        &polymq.Error{Op: "close", Err: polymq.ErrClosed},
		`amqp: inspect "q": not found`: &polymq.Error{Op: "inspect", Scheme: "amqp", Name: "q", Err: polymq.ErrNotFound},
		`nats: publish "x": message 2 (id): rejected by a queue; message 4: closed; message 5: closed; and 2 more`: &polymq.PublishError{Scheme: "nats", Exchange: "x", Failures: []polymq.Failure{
			{Index: 2, ID: "id", Err: polymq.ErrRejected}, {Index: 4, Err: polymq.ErrClosed}, {Index: 5, Err: polymq.ErrClosed}, {Index: 6, Err: polymq.ErrClosed}, {Index: 7, Err: polymq.ErrClosed},
		}},
	} {
		if err.Error() != want {
			t.Errorf("got  %s\nwant %s", err, want)
		}
	}
}
