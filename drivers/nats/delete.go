package nats

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// A queue that is deleted on a condition is closed first: its stream loses the
// messages' subject, so that nothing is confirmed between the look and the
// deletion, and publishers, who find nobody listening and the queue there, try
// again. It is then deleted or opened again, within closedTime. A program that
// dies in between leaves it closed; who finds it closed for longer than
// reopenTime opens it.
const (
	metaClosed = "polymq-closed"    // since when, by the server's clock
	metaCloser = "polymq-closed-by" // the last who closed it, and opens or deletes it
	closedTime = 10 * time.Second
	reopenTime = 30 * time.Second
)

// QueueExists also opens a queue that was left closed.
func (s *store) QueueExists(ctx context.Context, q *emulate.Queue) (bool, error) {
	h := s.newHandle(q)
	exists := true
	err := s.do(ctx, "looking for the queue's stream", func(ctx context.Context) error {
		stream, err := s.js.Stream(ctx, h.stream)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			exists = false
			return nil
		}
		if err != nil {
			return err
		}
		info := stream.CachedInfo()
		if at, closed := info.Config.Metadata[metaClosed]; closed {
			since, err := time.Parse(time.RFC3339Nano, at)
			if err != nil || info.TimeStamp.Sub(since) > reopenTime {
				s.cfg.Logger.Warn("nats: a queue that a program was about to delete, and did not, takes messages again", "queue", q.Name)
				return s.reopen(ctx, h, info.Config.Metadata[metaCloser])
			}
		}
		return nil
	})
	return exists, err
}

func (s *store) DeleteQueue(ctx context.Context, q *emulate.Queue, o emulate.DeleteOptions) error {
	h := s.newHandle(q)
	if !o.IfUnused && !o.IfEmpty && o.Idle == 0 {
		return s.deleteStream(ctx, h)
	}
	ctx, cancel := context.WithTimeout(ctx, closedTime)
	defer cancel()
	closer := rand.Text()
	err := s.deleteIf(ctx, q, h, o, closer)
	if err == nil || errors.Is(err, emulate.ErrGone) || errors.Is(err, driver.ErrNotFound) {
		return nil
	}
	again, stop := context.WithTimeout(context.WithoutCancel(ctx), closedTime)
	defer stop()
	oerr := s.do(again, "opening the queue", func(ctx context.Context) error { return s.reopen(ctx, h, closer) })
	if oerr != nil && !isStreamGone(oerr) {
		s.cfg.Logger.Warn("nats: a queue that was not deleted takes messages again only later", "queue", q.Name, "error", oerr)
	}
	return err
}

// deleteIf closes the queue and deletes it if the conditions hold.
func (s *store) deleteIf(ctx context.Context, q *emulate.Queue, h *handle, o emulate.DeleteOptions, closer string) error {
	for {
		if err := s.do(ctx, "closing the queue", func(ctx context.Context) error { return s.shut(ctx, h, closer) }); err != nil {
			return err
		}
		info, err := s.Inspect(ctx, q)
		switch {
		case err != nil:
			return err
		case o.IfUnused && info.Consumers > 0:
			return fmt.Errorf("%w: the queue has %d subscribers", driver.ErrInUse, info.Consumers)
		case o.IfEmpty && info.Ready > 0:
			return fmt.Errorf("%w: the queue has %d ready messages", driver.ErrInUse, info.Ready)
		}
		if o.Idle > 0 {
			u, err := s.Usage(ctx, q)
			if err != nil {
				return err
			}
			if u.Consumers > 0 || u.Idle < o.Idle {
				return fmt.Errorf("%w: the queue was used %v ago", driver.ErrInUse, u.Idle)
			}
		}
		// Another one who closed it meanwhile may have opened it again, also
		// between two tries.
		mine := false
		err = s.do(ctx, "deleting the queue", func(ctx context.Context) error {
			stream, err := s.js.Stream(ctx, h.stream)
			if err != nil {
				return err
			}
			if mine = stream.CachedInfo().Config.Metadata[metaCloser] == closer; !mine {
				return nil
			}
			return s.js.DeleteStream(ctx, h.stream)
		})
		if mine && (err == nil || errors.Is(err, driver.ErrNotFound)) {
			s.tellDeleted(h)
		}
		if err != nil || mine {
			return err
		}
	}
}

func (s *store) deleteStream(ctx context.Context, h *handle) error {
	err := s.do(ctx, "deleting the queue's stream", func(ctx context.Context) error {
		err := s.js.DeleteStream(ctx, h.stream)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil
		}
		return err
	})
	if err == nil {
		s.tellDeleted(h)
	}
	return err
}

// tellDeleted ends this connection's own consumers, and tells others: those
// whose inbox is full have no request open by which the server could.
func (s *store) tellDeleted(h *handle) {
	s.mu.Lock()
	var own []*consumer
	for c := range s.consumers {
		if c.h.stream == h.stream {
			own = append(own, c)
		}
	}
	s.mu.Unlock()
	for _, c := range own {
		c.end(jetstream.ErrStreamNotFound)
	}
	s.ledgersMu.Lock()
	var book *ledger
	for _, l := range s.ledgers {
		if l.h.stream == h.stream {
			book = l
		}
	}
	s.ledgersMu.Unlock()
	if book != nil {
		book.end(fmt.Errorf("%w: %w", emulate.ErrGone, jetstream.ErrStreamNotFound))
	}
	_ = s.nc.Publish(h.held, nil) // unheard, they find out in time
}

// shut takes the messages' subject from the stream, and returns when what the
// server had received for it is stored.
func (s *store) shut(ctx context.Context, h *handle, closer string) error {
	stream, err := s.js.Stream(ctx, h.stream)
	if err != nil {
		return err
	}
	info := stream.CachedInfo()
	cfg := info.Config
	cfg.Subjects = h.besides()
	cfg.Metadata[metaClosed] = info.TimeStamp.Format(time.RFC3339Nano)
	cfg.Metadata[metaCloser] = closer
	if _, err := s.js.UpdateStream(ctx, cfg); err != nil {
		return err
	}
	_, err = s.publishOne(ctx, h.nothing()) // behind it
	return err
}

// reopen undoes shut, unless somebody else has closed the queue since.
func (s *store) reopen(ctx context.Context, h *handle, closer string) error {
	stream, err := s.js.Stream(ctx, h.stream)
	if err != nil {
		return err
	}
	cfg := stream.CachedInfo().Config
	if slices.Contains(cfg.Subjects, h.subject) || cfg.Metadata[metaCloser] != closer {
		return nil
	}
	cfg.Subjects = h.subjects()
	delete(cfg.Metadata, metaClosed)
	delete(cfg.Metadata, metaCloser)
	_, err = s.js.UpdateStream(ctx, cfg)
	return err
}
