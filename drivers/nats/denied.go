package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq/driver"
)

// asks are the requests that are under way. The server does not answer one that
// the user may not make: it tells the connection which subject was denied, and
// the request would wait for its time.
type asks struct {
	mu   sync.Mutex
	open map[*ask]struct{}
}

type ask struct {
	fail     context.CancelCauseFunc
	subjects []string
}

type askKey struct{}

// begin returns the context of a request, which ends with why when what it asks
// is denied.
func (a *asks) begin(ctx context.Context) (context.Context, func()) {
	k := new(ask)
	ctx, k.fail = context.WithCancelCause(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		a.open = map[*ask]struct{}{}
	}
	a.open[k] = struct{}{}
	return context.WithValue(ctx, askKey{}, k), func() {
		a.mu.Lock()
		delete(a.open, k)
		a.mu.Unlock()
		k.fail(nil)
	}
}

// asking notes that the request of ctx is about to publish to a subject.
func (s *store) asking(ctx context.Context, subject string) {
	if k, ok := ctx.Value(askKey{}).(*ask); ok {
		s.asks.mu.Lock()
		k.subjects = append(k.subjects, subject)
		s.asks.mu.Unlock()
	}
}

// denied tells those whom it concerns that the user may not do something, and
// reports whether there are any.
func (s *store) denied(err error) bool {
	text := err.Error()
	action, subject := "publish", quoted(text, `Publish to "`)
	if subject == "" {
		action, subject = "subscribe", quoted(text, `Subscription to "`)
	}
	err = fmt.Errorf("%w: the user may not %s to %s: allow it, see Permissions in the documentation of drivers/nats: %w", driver.ErrPermission, action, subject, err)
	told := false
	if action == "publish" {
		for _, parcel := range s.publisher.abandon(func(sl *slot) bool { return handleOf(sl.parcel.Queue).subject == subject }) {
			parcel.Done(err)
			told = true
		}
		for _, c := range s.consuming(subject) {
			c.in.Fail(err)
			told = true
		}
	}
	s.asks.mu.Lock()
	defer s.asks.mu.Unlock()
	for k := range s.asks.open {
		if action == "publish" && slices.Contains(k.subjects, subject) || action == "subscribe" && strings.HasPrefix(subject, natsgo.InboxPrefix) {
			k.fail(err)
			told = true
		}
	}
	return told
}

// consuming are the consumers that publish to a subject to ask for messages of
// their stream, or to settle them.
func (s *store) consuming(subject string) (of []*consumer) {
	if !strings.HasPrefix(subject, "$JS.") {
		return nil
	}
	tokens := strings.Split(subject, ".")
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.consumers {
		if slices.Contains(tokens, c.h.stream) && (tokens[1] == "ACK" || strings.Contains(subject, ".MSG.NEXT.")) {
			of = append(of, c)
		}
	}
	return of
}

func quoted(s, before string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, _ = strings.Cut(s, `"`)
	return s
}

// denial is err, or why the request of ctx was denied.
func denial(ctx context.Context, err error) error {
	if why := context.Cause(ctx); err != nil && errors.Is(why, driver.ErrPermission) {
		return why
	}
	return err
}

// api is JetStream's management by requests that are noted as such.
type api struct {
	jetstream.JetStream
	s *store
}

func (a api) AccountInfo(ctx context.Context) (*jetstream.AccountInfo, error) {
	a.s.asking(ctx, "$JS.API.INFO")
	return a.JetStream.AccountInfo(ctx)
}

func (a api) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	a.s.asking(ctx, "$JS.API.STREAM.INFO."+name)
	return hedged(ctx, a.s, func(ctx context.Context) (jetstream.Stream, error) { return a.JetStream.Stream(ctx, name) })
}

func (a api) CreateStream(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	a.s.asking(ctx, "$JS.API.STREAM.CREATE."+cfg.Name)
	return a.JetStream.CreateStream(ctx, cfg)
}

func (a api) UpdateStream(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	a.s.asking(ctx, "$JS.API.STREAM.UPDATE."+cfg.Name)
	return a.JetStream.UpdateStream(ctx, cfg)
}

func (a api) DeleteStream(ctx context.Context, name string) error {
	a.s.asking(ctx, "$JS.API.STREAM.DELETE."+name)
	return a.JetStream.DeleteStream(ctx, name)
}

func (a api) Consumer(ctx context.Context, stream, name string) (jetstream.Consumer, error) {
	a.s.asking(ctx, "$JS.API.CONSUMER.INFO."+stream+"."+name)
	return hedged(ctx, a.s, func(ctx context.Context) (jetstream.Consumer, error) { return a.JetStream.Consumer(ctx, stream, name) })
}

func (a api) CreateConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	a.s.asking(ctx, "$JS.API.CONSUMER.CREATE."+stream+"."+cfg.Durable+"."+cfg.FilterSubject)
	return a.JetStream.CreateConsumer(ctx, stream, cfg)
}

func (a api) UpdateConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	a.s.asking(ctx, "$JS.API.CONSUMER.CREATE."+stream+"."+cfg.Durable+"."+cfg.FilterSubject)
	return a.JetStream.UpdateConsumer(ctx, stream, cfg)
}
