package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// handle is what a queue's incarnation means here.
type handle struct {
	stream  string
	prefix  string // of the stream's subjects
	subject string // of its messages
	held    string // asks its consumers what they hold
	next    string // asks the server for messages
	probe   string // ends a hold that does not exist
	kept    bool   // it has a book
	counted bool   // how it is used is recorded
}

// consumerName is the durable consumer that all subscribers of a queue share.
const consumerName = "subscribers"

// noSequence is one that no message will have.
const noSequence = "4611686018427387904"

// maxAckPending does not bound a queue: what subscribers hold is bounded by
// their prefetch, and delayed messages count as pending too.
const maxAckPending = 10_000_000

func (s *store) newHandle(q *emulate.Queue) *handle {
	prefix := s.names.queue(q.Incarnation)
	return &handle{
		stream:  s.names.queueStream(q.Incarnation),
		prefix:  prefix,
		subject: prefix + ".m",
		held:    s.names.held(q.Incarnation),
		next:    "$JS.API.CONSUMER.MSG.NEXT." + s.names.queueStream(q.Incarnation) + "." + consumerName,
		kept:    isKept(q),
		counted: q.AutoDelete || q.Expires > 0,
		probe:   "$JS.ACK." + s.names.queueStream(q.Incarnation) + "." + consumerName + ".1." + noSequence + ".0.0.0",
	}
}

// subjects are those of the queue's stream.
func (h *handle) subjects() []string { return append([]string{h.subject}, h.besides()...) }

// besides are the subjects of the records beside the messages.
func (h *handle) besides() []string {
	switch {
	case h.kept:
		return []string{h.prefix + ".e", h.prefix + ".s"}
	case h.counted:
		return []string{h.prefix + ".c.*", h.prefix + ".r.*", h.prefix + ".u"}
	}
	return []string{h.prefix + ".c.*", h.prefix + ".r.*"}
}

// nothing is a message for the stream that means nothing.
func (h *handle) nothing() *natsgo.Msg {
	if h.kept {
		return &natsgo.Msg{Subject: h.prefix + ".e", Header: natsgo.Header{headerDeeds: {"[]"}}}
	}
	return h.record(0, 0)
}

func (s *store) Attach(q *emulate.Queue) { q.Handle = s.newHandle(q) }

func handleOf(q *emulate.Queue) *handle { return q.Handle.(*handle) }

func (s *store) CreateQueue(ctx context.Context, q *emulate.Queue) error {
	h := s.newHandle(q)
	storage := jetstream.FileStorage
	if q.Transient {
		storage = jetstream.MemoryStorage
	}
	return s.do(ctx, "creating the queue's stream", func(ctx context.Context) error {
		cfg := jetstream.StreamConfig{
			Name:        h.stream,
			Description: "polymq: queue " + describe(q.Name),
			Subjects:    h.subjects(),
			Retention:   jetstream.WorkQueuePolicy,
			Storage:     storage,
			Replicas:    s.opt.replicas,
			Duplicates:  dedupWindow,
			AllowDirect: true,
			AllowRollup: true, // of the records beside the messages
			AllowMsgTTL: true, // likewise
			Metadata:    map[string]string{metaFormat: format, metaNamespace: s.opt.vhost, metaQueue: q.Name},
		}
		if h.kept {
			cfg.Retention = jetstream.LimitsPolicy
			cfg.Metadata[metaBook] = bookRules
		}
		err := again(ctx, func() error {
			_, err := s.js.CreateStream(ctx, cfg)
			return err
		})
		if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) && !hasCode(err, codeStreamExists) {
			return err
		}
		if h.kept {
			return nil
		}
		err = again(ctx, func() error {
			_, err := s.js.CreateConsumer(ctx, h.stream, s.consumerConfig(h))
			return err
		})
		if errors.Is(err, jetstream.ErrConsumerExists) {
			return nil // with another lease: Consume sees to it
		}
		return err
	})
}

func (s *store) consumerConfig(h *handle) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:       consumerName,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       s.opt.lease,
		MaxDeliver:    -1,
		MaxAckPending: maxAckPending,
		MaxWaiting:    100_000,
		FilterSubject: h.subject,
	}
}

// describe shortens a name for a description, which the server bounds.
func describe(name string) string {
	if len(name) > 255 {
		return name[:255]
	}
	return name
}

// Inspect counts what the stream has, and asks the subscribers what they hold
// of it: the server counts as pending also what was given back and waits for
// its delay. A subscriber that does not answer has died with its process;
// until its record runs out, with the lease, it counts with what it last said.
func (s *store) Inspect(ctx context.Context, q *emulate.Queue) (driver.QueueInfo, error) {
	if isKept(q) {
		return s.inspectKept(ctx, q)
	}
	h := s.newHandle(q)
	var info driver.QueueInfo
	err := s.do(ctx, "inspecting the queue", func(ctx context.Context) error {
		holders, err := s.holders(ctx, h)
		if err != nil {
			return err
		}
		info = driver.QueueInfo{}
		for record, held := range holders {
			if !strings.HasSuffix(record, drainedMark) {
				info.Consumers++
			}
			info.Unsettled += len(held)
		}
		stream, err := s.js.Stream(ctx, h.stream)
		if err != nil {
			return err
		}
		state, err := stream.Info(ctx, jetstream.WithSubjectFilter(h.subject))
		if err != nil {
			return err
		}
		info.Ready = max(0, int(state.State.Subjects[h.subject])-info.Unsettled-len(s.swept.of(q.Incarnation)))
		return nil
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, driver.ErrNotFound) {
		return driver.QueueInfo{}, fmt.Errorf("%w: %w", emulate.ErrGone, err)
	}
	return info, err
}

// holdersTimeout is how long a subscriber may take to say what it holds.
const holdersTimeout = 500 * time.Millisecond

// holders asks each subscriber of a queue for the sequences that it holds.
func (s *store) holders(ctx context.Context, h *handle) (map[string][]uint64, error) {
	stream, err := s.js.Stream(ctx, h.stream)
	if err != nil {
		return nil, err
	}
	records := h.prefix + ".c."
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(records+"*"))
	if err != nil {
		return nil, err
	}
	holders := make(map[string][]uint64, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		holders[strings.TrimPrefix(subject, records)] = nil
	}
	if len(holders) == 0 {
		return holders, nil
	}
	inbox := s.nc.NewInbox()
	sub, err := s.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe()
	if err := s.nc.PublishRequest(h.held, inbox, []byte("?")); err != nil {
		return nil, err
	}
	ask, cancel := context.WithTimeout(ctx, holdersTimeout)
	defer cancel()
	for missing := len(holders); missing > 0; {
		m, err := sub.NextMsgWithContext(ask)
		if err != nil || m.Header.Get("Status") == "503" {
			break
		}
		id, held := parseHeld(m.Data)
		if _, ok := holders[id]; ok && holders[id] == nil {
			holders[id] = held
			missing--
		}
	}
	return holders, ctx.Err()
}
