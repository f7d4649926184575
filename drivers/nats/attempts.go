package nats

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
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
	var reply struct {
		Total int `json:"total"`
		State struct {
			Subjects map[string]uint64 `json:"subjects"`
		} `json:"state"`
	}
	records := h.prefix + ".r."
	err = s.call(ctx, "$JS.API.STREAM.INFO."+h.stream, struct {
		Filter string `json:"subjects_filter"`
	}{records + "*"}, &reply)
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

// look puts all that waits for its count.
func (c *consumer) look(ctx context.Context) {
	late := false
	for {
		c.mu.Lock()
		batch := c.uncounted
		c.uncounted = nil
		if len(batch) == 0 {
			c.counting = false
			c.mu.Unlock()
			break
		}
		c.mu.Unlock()
		bounded, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := c.s.once(bounded, func(ctx context.Context) error { return c.lookUp(ctx, batch) })
		cancel()
		if err != nil && ctx == c.ctx && ctx.Err() != nil { // Close goes on with it
			c.mu.Lock()
			c.uncounted = append(batch, c.uncounted...)
			c.mu.Unlock()
			break
		}
		if err != nil {
			c.s.cfg.Logger.Warn("nats: the attempts of messages may be counted too high", "queue", c.q.Name, "messages", len(batch), "error", err)
		}
		now := time.Now()
		c.mu.Lock()
		for _, a := range batch {
			a.h.Attempt = max(1, int(a.h.Gen)-a.h.uncounted)
			late = c.place(a.l, a.h, now) || late
		}
		c.mu.Unlock()
	}
	if late {
		signal(c.drop)
	}
}

// lookUp reads the records of messages. Without an answer there are none, and
// an attempt may be counted that was none.
func (c *consumer) lookUp(ctx context.Context, batch []arrival) error {
	var records []uint64
	all := false
	if len(batch) > 1 {
		var err error
		if records, all, err = c.s.records(ctx, c.h); err != nil {
			return err
		}
	}
	for _, a := range batch {
		if !a.h.Redelivered {
			continue
		}
		if _, ok := slices.BinarySearch(records, a.h.Seq); all && !ok {
			continue
		}
		m, ok, err := c.s.leaderGet(ctx, c.h.stream, getRequest{LastFor: c.h.record(a.h.Seq, 1).Subject})
		if ok && len(m.data) > 0 {
			a.h.uncounted, err = strconv.Atoi(string(m.data))
		}
		if err != nil {
			return err
		}
	}
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
