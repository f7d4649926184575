package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq/driver/emulate"
)

const (
	purgeBatch = 1000
	// purgeWait is how long a purge waits for the first message of a batch. The
	// server tells consumers of a message after it has confirmed it: one that
	// is asked at once may not know of it yet.
	purgeWait = 25 * time.Millisecond
)

// Purge removes the ready messages. The server's own purge would take those
// that subscribers hold as well; so it takes what is waiting as a subscriber
// does, and acknowledges it. What was given back with a delay cannot be taken
// yet: it is then deleted, being whatever is left that nobody holds.
func (s *store) Purge(ctx context.Context, q *emulate.Queue) (int, error) {
	if isKept(q) {
		return s.purgeKept(ctx, q)
	}
	h := s.newHandle(q)
	n := 0
	var removed []uint64 // in every try
	err := s.do(ctx, "purging the queue", func(ctx context.Context) error {
		if _, err := s.js.Stream(ctx, h.stream); err != nil {
			return err
		}
		for {
			took, err := s.takeAway(ctx, h)
			n += len(took)
			removed = append(removed, took...)
			if err != nil {
				return err
			}
			if len(took) == 0 {
				break
			}
		}
		deleted, err := s.deleteDelayed(ctx, h, q.Incarnation, removed)
		n += len(deleted)
		removed = append(removed, deleted...)
		if err != nil || len(removed) == 0 {
			return err
		}
		return s.forgetRecords(ctx, h, removed)
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, fmt.Errorf("%w: %w", emulate.ErrGone, err)
	}
	return n, err
}

// takeAway takes one batch of messages and acknowledges it.
func (s *store) takeAway(ctx context.Context, h *handle) (took []uint64, err error) {
	msgs, err := s.pull(ctx, h, purgeBatch, purgeWait)
	for _, m := range msgs {
		a, ok := parseAckSubject(m.Reply)
		if !ok {
			return took, fmt.Errorf("nats: a message with an acknowledgement subject of unknown form: %s", m.Reply)
		}
		if err := s.nc.Publish(m.Reply, ackBody); err != nil {
			return took, err
		}
		took = append(took, a.seq)
	}
	if err != nil {
		return took, err
	}
	return took, s.nc.FlushWithContext(ctx)
}

// pull takes up to n messages that are there, as a subscriber does; it waits
// for the first of them.
func (s *store) pull(ctx context.Context, h *handle, n int, wait time.Duration) (took []*natsgo.Msg, err error) {
	inbox := s.nc.NewInbox()
	sub, err := s.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe()
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, err
	}
	s.asking(ctx, h.next)
	req := fmt.Appendf(nil, `{"batch":%d,"no_wait":true,"expires":%d}`, n, wait)
	if err := s.nc.PublishRequest(h.next, inbox, req); err != nil {
		return nil, err
	}
	for len(took) < n {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return took, err
		}
		if m.Reply == "" {
			switch m.Header.Get("Status") {
			case "404", "408":
				return took, nil
			case "503":
				return took, natsgo.ErrNoResponders
			}
			return took, fmt.Errorf("nats: taking messages: %s %s", m.Header.Get("Status"), m.Header.Get("Description"))
		}
		took = append(took, m)
	}
	return took, nil
}

// deleteDelayed deletes the messages that were delivered once and that nobody
// holds. While a subscriber that has died may still hold some, it deletes none.
// Of those that were taken the server may not have removed all yet.
func (s *store) deleteDelayed(ctx context.Context, h *handle, incarnation string, taken []uint64) (deleted []uint64, err error) {
	consumer, err := s.js.Consumer(ctx, h.stream, consumerName)
	if err != nil {
		return nil, err
	}
	state := consumer.CachedInfo()
	if state.NumAckPending == 0 {
		return nil, nil
	}
	holders, err := s.holders(ctx, h)
	if err != nil {
		return nil, err
	}
	spared := append(s.swept.of(incarnation), taken...)
	for _, seqs := range holders {
		if seqs == nil {
			return nil, nil
		}
		spared = append(spared, seqs...)
	}
	slices.Sort(spared)
	var left []uint64
	for from, more := uint64(1), true; more; {
		if from, more, err = s.page(ctx, h.stream, getRequest{Seq: from, NextFor: h.subject}, func(e stored) {
			if _, ok := slices.BinarySearch(spared, e.seq); !ok && e.seq <= state.Delivered.Stream {
				left = append(left, e.seq)
			}
		}); err != nil {
			return nil, err
		}
		more = more && from <= state.Delivered.Stream
	}
	for batch := range slices.Chunk(left, atOnce) {
		there, err := s.deleteMessages(ctx, h, batch)
		deleted = append(deleted, there...)
		if err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

// purge removes all messages of a subject.
func (s *store) purge(ctx context.Context, stream, subject string) error {
	var reply struct{}
	return s.call(ctx, "$JS.API.STREAM.PURGE."+stream, struct {
		Filter string `json:"filter"`
	}{subject}, &reply)
}
