package polymq_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq"
)

type ctxKey string

// diary writes down, in order, what the hooks of one observer are told.
type diary struct {
	name string

	mu    sync.Mutex
	lines []string
}

func (d *diary) note(ctx context.Context, format string, args ...any) {
	line := d.name + fmt.Sprintf(format, args...)
	for _, k := range []ctxKey{"publish", "process"} {
		if v := ctx.Value(k); v != nil {
			line += fmt.Sprintf(" (%s %v)", k, v)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

// want compares what was written since the last time.
func (d *diary) want(t *testing.T, lines ...string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.lines, lines) {
		t.Errorf("the hooks were told\n\t%s\nwant\n\t%s", strings.Join(d.lines, "\n\t"), strings.Join(lines, "\n\t"))
	}
	d.lines = nil
}

func (d *diary) hooks() *polymq.Hooks {
	outcomes := func(e polymq.PublishEvent) string {
		var s strings.Builder
		for _, m := range e.Messages {
			fmt.Fprintf(&s, " %s:%v", m.ID, m.Err != nil)
		}
		return s.String()
	}
	ids := func(ds []*polymq.Delivery) (ids []string) {
		for _, x := range ds {
			ids = append(ids, x.ID)
		}
		return ids
	}
	return &polymq.Hooks{
		PublishBegin: func(ctx context.Context, e polymq.PublishEvent) context.Context {
			d.note(ctx, "publish to %s, async %v: %d, %v", e.Exchange, e.Async, len(e.Messages), e.Err)
			return context.WithValue(ctx, ctxKey("publish"), d.name)
		},
		PublishEnd: func(ctx context.Context, e polymq.PublishEvent) {
			d.note(ctx, "published to %s:%s, failed %v", e.Exchange, outcomes(e), e.Err != nil)
		},
		Receive: func(ctx context.Context, e polymq.ReceiveEvent) {
			d.note(ctx, "received from %s: %v, handler %v, batch %v, failed %v", e.Queue, ids(e.Deliveries), e.Handler, e.Batch, e.Err != nil)
		},
		ProcessBegin: func(ctx context.Context, e polymq.ProcessEvent) context.Context {
			d.note(ctx, "process %s", e.Delivery.ID)
			return context.WithValue(ctx, ctxKey("process"), d.name+e.Delivery.ID)
		},
		ProcessEnd: func(ctx context.Context, e polymq.ProcessEvent) {
			d.note(ctx, "processed %s: %v", e.Delivery.ID, e.Err)
		},
		Settle: func(ctx context.Context, e polymq.SettleEvent) {
			d.note(ctx, "%v %s after %v: failed %v, done %v", e.Outcome, e.Delivery.ID, e.Delay, e.Err != nil, e.Done)
		},
		Release: func(e polymq.ReleaseEvent) { d.note(context.Background(), "%s: %d released", e.Queue, e.Count) },
		State:   func(s polymq.State, err error) { d.note(context.Background(), "%v: %v", s, err) },
	}
}

// observed is a connection of f with observers.
func observed(t testing.TB, f *fake, os ...polymq.Observer) *polymq.Conn {
	c := polymq.NewConn(f, &polymq.Options{Observers: os})
	t.Cleanup(func() { _ = c.Close(t.Context()) })
	return c
}

// Of two observers the first is the outer one.
func TestHooksOfSeveralObservers(t *testing.T) {
	f := newFake()
	var d diary
	named := func(name string) *polymq.Hooks {
		hooks := (&diary{name: name}).hooks()
		begin, end := hooks.PublishBegin, hooks.PublishEnd
		hooks.PublishBegin = func(ctx context.Context, e polymq.PublishEvent) context.Context {
			d.note(ctx, "%s begin", name)
			return begin(ctx, e)
		}
		hooks.PublishEnd = func(ctx context.Context, e polymq.PublishEvent) {
			d.note(ctx, "%s end", name)
			end(ctx, e)
		}
		return hooks
	}
	only := &polymq.Hooks{Release: func(e polymq.ReleaseEvent) { d.note(context.Background(), "released %d", e.Count) }}
	c := observed(t, f, named("a"), nil, &polymq.Hooks{}, (*polymq.Hooks)(nil), only, named("b"))
	p, err := c.Publisher(t.Context(), "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(t.Context(), &polymq.Message{}); err != nil {
		t.Fatal(err)
	}
	d.want(t, "a begin", "b begin (publish a)", "b end (publish b)", "a end (publish b)")

	s, err := c.Subscriber(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	f.deliver("1")
	if _, err := s.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = s.Close(t.Context())
	d.want(t, "released 1")
}

type observer func(polymq.ConnInfo) *polymq.Hooks

func (o observer) Observe(info polymq.ConnInfo) *polymq.Hooks { return o(info) }

func TestObserve(t *testing.T) {
	var infos []polymq.ConnInfo
	var d diary
	o := observer(func(info polymq.ConnInfo) *polymq.Hooks {
		infos = append(infos, info)
		return d.hooks()
	})
	c, err := polymq.Open(t.Context(), "faketest://user:secret@one:1,two/", &polymq.Options{Observers: []polymq.Observer{o}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	observed(t, newFake(), o)
	if got := fmt.Sprint(infos); got != "[{faketest [one:1 two] } { [] fake 1}]" {
		t.Error(got)
	}
	registered.cfg.OnState(polymq.StateDisconnected, io.EOF)
	registered.cfg.OnState(polymq.StateConnected, nil)
	d.want(t, "connected: <nil>", "disconnected: EOF", "connected: <nil>")
}

// Redrive is not the application's publishing and receiving.
func TestHooksAreNotToldOfRedrive(t *testing.T) {
	f := newFake()
	var d diary
	c := observed(t, f, d.hooks())
	f.deliver("1")
	_, err := c.Redrive(t.Context(), "q", &polymq.RedriveOptions{Idle: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	d.want(t)
}
