package nats

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/polymq/polymq/driver"
)

// record is the message that says how many deliveries of a message do not
// count; 0 removes it, by a successor that the server removes at once.
func (h *handle) record(seq uint64, uncounted int) *natsgo.Msg {
	m := &natsgo.Msg{
		Subject: h.prefix + ".r." + strconv.FormatUint(seq, 10),
		Header:  natsgo.Header{"Nats-Rollup": {"sub"}},
	}
	if uncounted > 0 {
		m.Data = strconv.AppendInt(nil, int64(uncounted), 10)
	} else {
		m.Header["Nats-TTL"] = []string{"1s"}
	}
	return m
}

// records are the sequences of a queue's messages of which deliveries do not
// count; all is false where there are more than the server lists at once.
func (s *store) records(ctx context.Context, h *handle) (seqs []uint64, all bool, err error) {
	type page struct {
		Total int `json:"total"`
		State struct {
			Subjects map[string]uint64 `json:"subjects"`
		} `json:"state"`
	}
	records := h.prefix + ".r."
	reply, err := hedged(ctx, s, func(ctx context.Context) (reply page, err error) {
		err = s.call(ctx, "$JS.API.STREAM.INFO."+h.stream, struct {
			Filter string `json:"subjects_filter"`
		}{records + "*"}, &reply)
		return reply, err
	})
	for subject := range reply.State.Subjects {
		if seq, err := strconv.ParseUint(strings.TrimPrefix(subject, records), 10, 64); err == nil {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	return seqs, reply.Total <= len(reply.State.Subjects), err
}

// attempts puts into the inbox what is not delivered for the first time. What
// has come while it asked the server is asked for together: the server answers
// for one and for a thousand as fast, and mostly that there is no record.
func (c *consumer) attempts() {
	for {
		select {
		case <-c.count:
			c.look(c.ctx)
		case <-c.ctx.Done():
			return
		}
	}
}

// look puts all that waits for its count, in its order. What the server gives
// no answer for is asked for again, and is never put with a guessed count: that
// could bury a message that nobody has seen. Once its hold is late it is left
// to come again.
func (c *consumer) look(ctx context.Context) {
	pause := time.Duration(0)
	for {
		c.mu.Lock()
		batch := c.uncounted
		c.uncounted, c.looking = nil, batch
		if len(batch) == 0 {
			c.counting = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		err := c.s.once(ctx, func(ctx context.Context) error { return c.lookUp(ctx, batch) })
		gone := isStreamGone(err) || errors.Is(err, driver.ErrClosed)
		now, late, n := time.Now(), false, 0
		c.mu.Lock()
		for _, a := range batch {
			if gone && !a.known {
				a.h.until = now
			}
			if !a.known && now.Before(a.h.until) {
				break
			}
			a.h.Attempt = max(1, int(a.h.Gen)-a.h.uncounted)
			c.looking = c.looking[1:] // place counts what is still to come
			late = c.place(a.l, []*hold{a.h}, now) || late
			n++
		}
		c.uncounted, c.looking = append(batch[n:], c.uncounted...), nil
		c.mu.Unlock()
		if late {
			signal(c.drop)
		}
		if ctx.Err() != nil { // Close goes on with it
			return
		}
		if err == nil || n > 0 {
			pause = 0
			continue
		}
		if pause == 0 {
			c.s.cfg.Logger.Warn("nats: messages wait until their attempts can be looked up", "queue", c.q.Name, "messages", len(batch), "error", err)
		}
		pause = min(max(2*pause, 20*time.Millisecond), time.Second)
		if wait(ctx, pause) != nil {
			return
		}
	}
}

// lookups is how many records are asked for at once: one after the other, a
// slow link would keep a full inbox waiting for longer than its lease.
const lookups = 64

// lookUp reads the records of messages, and marks those that it knows.
func (c *consumer) lookUp(ctx context.Context, batch []arrival) error {
	var records []uint64
	all := false
	if len(batch) > 1 {
		var err error
		if records, all, err = c.s.records(ctx, c.h); err != nil {
			return err
		}
	}
	var unknown []*arrival
	for i := range batch {
		a := &batch[i]
		_, ok := slices.BinarySearch(records, a.h.Seq)
		if !a.h.Redelivered || all && !ok {
			a.known = true
		}
		if !a.known {
			unknown = append(unknown, a)
		}
	}
	workers := min(lookups, len(unknown))
	errs := make([]error, workers)
	var done sync.WaitGroup
	for w := range workers {
		done.Go(func() {
			for i := w; i < len(unknown) && errs[w] == nil; i += workers {
				errs[w] = c.lookUpOne(ctx, unknown[i])
			}
		})
	}
	done.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *consumer) lookUpOne(ctx context.Context, a *arrival) error {
	m, ok, err := c.s.leaderGet(ctx, c.h.stream, getRequest{LastFor: c.h.record(a.h.Seq, 1).Subject})
	if err != nil {
		return err
	}
	if ok && len(m.data) > 0 {
		// A record that is no number is nobody's: the message must not wait for
		// it to become one.
		a.h.uncounted, _ = strconv.Atoi(string(m.data))
	}
	a.known = true
	return nil
}

// forgetRecords removes the records of messages that are not there any more.
func (s *store) forgetRecords(ctx context.Context, h *handle, removed []uint64) error {
	records, _, err := s.records(ctx, h)
	if err != nil {
		return err
	}
	slices.Sort(removed)
	for _, seq := range records {
		if _, ok := slices.BinarySearch(removed, seq); ok {
			if err := s.nc.PublishMsg(h.record(seq, 0)); err != nil {
				return err
			}
		}
	}
	return nil
}
