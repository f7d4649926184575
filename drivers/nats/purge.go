package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq/driver/emulate"
)

const purgeBatch = 1000

// Purge removes the ready messages. The server's own purge would take those
// that subscribers hold as well; so it takes what is waiting as a subscriber
// does, and acknowledges it. What was given back with a delay cannot be taken
// yet: it is then deleted, being whatever is left that nobody holds.
func (s *store) Purge(ctx context.Context, q *emulate.Queue) (int, error) {
	h := s.newHandle(q)
	n := 0
	err := s.do(ctx, "purging the queue", func(ctx context.Context) error {
		if _, err := s.js.Stream(ctx, h.stream); err != nil {
			return err
		}
		for {
			took, err := s.takeAway(ctx, h)
			n += took
			if err != nil {
				return err
			}
			if took == 0 {
				break
			}
		}
		deleted, err := s.deleteDelayed(ctx, h)
		n += deleted
		return err
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, fmt.Errorf("%w: %w", emulate.ErrGone, err)
	}
	return n, err
}

// takeAway takes one batch of messages and acknowledges it.
func (s *store) takeAway(ctx context.Context, h *handle) (n int, err error) {
	inbox := s.nc.NewInbox()
	sub, err := s.nc.SubscribeSync(inbox)
	if err != nil {
		return 0, err
	}
	defer sub.Unsubscribe()
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return 0, err
	}
	req := fmt.Appendf(nil, `{"batch":%d,"no_wait":true}`, purgeBatch)
	if err := s.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+h.stream+"."+consumerName, inbox, req); err != nil {
		return 0, err
	}
	for n < purgeBatch {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return n, err
		}
		if m.Reply == "" {
			switch m.Header.Get("Status") {
			case "404", "408":
				return n, s.nc.FlushWithContext(ctx)
			case "503":
				return n, natsgo.ErrNoResponders
			}
			return n, fmt.Errorf("nats: taking messages: %s %s", m.Header.Get("Status"), m.Header.Get("Description"))
		}
		if err := s.nc.Publish(m.Reply, ackBody); err != nil {
			return n, err
		}
		n++
	}
	return n, s.nc.FlushWithContext(ctx)
}

// deleteDelayed deletes the messages that were delivered once and that nobody
// holds. While a subscriber that has died may still hold some, it deletes none.
func (s *store) deleteDelayed(ctx context.Context, h *handle) (n int, err error) {
	consumer, err := s.js.Consumer(ctx, h.stream, consumerName)
	if err != nil {
		return 0, err
	}
	state := consumer.CachedInfo()
	if state.NumAckPending == 0 {
		return 0, nil
	}
	holders, err := s.holders(ctx, h)
	if err != nil {
		return 0, err
	}
	var held []uint64
	for _, seqs := range holders {
		if seqs == nil {
			return 0, nil
		}
		held = append(held, seqs...)
	}
	slices.Sort(held)
	var left []uint64
	for from, more := uint64(1), true; more; {
		if from, more, err = s.page(ctx, h.stream, getRequest{Seq: from, NextFor: h.subject}, func(e stored) {
			if _, ok := slices.BinarySearch(held, e.seq); !ok && e.seq <= state.Delivered.Stream {
				left = append(left, e.seq)
			}
		}); err != nil {
			return 0, err
		}
		more = more && from <= state.Delivered.Stream
	}
	for _, seq := range left {
		err := s.call(ctx, "$JS.API.STREAM.MSG.DELETE."+h.stream, struct {
			Seq     uint64 `json:"seq"`
			NoErase bool   `json:"no_erase"`
		}{seq, true}, &struct{}{})
		if err == nil {
			n++
		} else if !hasCode(err, codeMessageNotFound) {
			return n, err
		}
	}
	return n, nil
}
