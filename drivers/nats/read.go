package nats

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// stored is a message of a stream as it was read back.
type stored struct {
	subject string
	seq     uint64
	at      time.Time
	data    []byte
	header  natsgo.Header
}

// call sends a request to JetStream's API and decodes the reply into v.
func (s *store) call(ctx context.Context, subject string, req, v any) error {
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	s.asking(ctx, subject)
	m, err := s.nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return err
	}
	var failed struct {
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &failed); err != nil {
		return fmt.Errorf("nats: reply of %s: %w", subject, err)
	}
	if failed.Error != nil {
		return failed.Error
	}
	return json.Unmarshal(m.Data, v)
}

type getRequest struct {
	Seq     uint64 `json:"seq,omitempty"`
	LastFor string `json:"last_by_subj,omitempty"`
	NextFor string `json:"next_by_subj,omitempty"`
	Batch   int    `json:"batch,omitempty"`
	// MaxBytes keeps a page well below what the server queues for one client.
	MaxBytes int `json:"max_bytes,omitempty"`
}

// leaderGet reads one message from the stream's leader; ok is false where
// there is none.
func (s *store) leaderGet(ctx context.Context, stream string, req getRequest) (m stored, ok bool, err error) {
	type message struct {
		Message struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Data    []byte    `json:"data"`
			Header  []byte    `json:"hdrs"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	reply, err := hedged(ctx, s, func(ctx context.Context) (reply message, err error) {
		err = s.call(ctx, "$JS.API.STREAM.MSG.GET."+stream, req, &reply)
		return reply, err
	})
	if hasCode(err, codeMessageNotFound) {
		return stored{}, false, nil
	}
	if err != nil {
		return stored{}, false, err
	}
	r := reply.Message
	m = stored{subject: r.Subject, seq: r.Seq, at: r.Time, data: r.Data}
	if len(r.Header) > 0 {
		m.header, _ = natsgo.DecodeHeadersMsg(r.Header) // of another program, perhaps
	}
	return m, true, nil
}

const (
	pageMessages = 4096
	pageBytes    = 4 << 20
)

// page reads the messages of a stream from a sequence on with one request, in
// their order, and reports whether more are there. Any replica may answer, and
// it may lag behind the leader: then the page ends early, but what is in it
// has its place in the sequence all the same.
func (s *store) page(ctx context.Context, stream string, req getRequest, each func(stored)) (next uint64, more bool, err error) {
	if req.Batch == 0 {
		req.Batch, req.MaxBytes = pageMessages, pageBytes
	}
	if req.Seq == 0 {
		req.Seq = 1
	}
	body, err := json.Marshal(req)
	if err != nil {
		return 0, false, err
	}
	inbox := s.nc.NewInbox()
	sub, err := s.nc.SubscribeSync(inbox)
	if err != nil {
		return 0, false, err
	}
	defer sub.Unsubscribe()
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return 0, false, err
	}
	s.asking(ctx, "$JS.API.DIRECT.GET."+stream)
	if err := s.nc.PublishRequest("$JS.API.DIRECT.GET."+stream, inbox, body); err != nil {
		return 0, false, err
	}
	next = req.Seq
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return 0, false, err
		}
		switch status := m.Header.Get("Status"); status {
		case "":
			e, err := parseStored(m)
			if err != nil {
				return 0, false, err
			}
			next = e.seq + 1
			each(e)
		case "204":
			pending, err := strconv.ParseUint(m.Header.Get("Nats-Num-Pending"), 10, 64)
			if err != nil {
				return 0, false, fmt.Errorf("nats: end of batch without a count: %w", err)
			}
			return next, pending > 0, nil
		case "404":
			return next, false, nil
		default:
			return 0, false, fmt.Errorf("nats: reading %s: status %s %s", stream, status, m.Header.Get("Description"))
		}
	}
}

func parseStored(m *natsgo.Msg) (stored, error) {
	e := stored{subject: m.Header.Get("Nats-Subject"), data: m.Data, header: m.Header}
	var err error
	if e.seq, err = strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64); err != nil {
		return stored{}, fmt.Errorf("nats: a stored message without a sequence: %w", err)
	}
	if e.at, err = time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp")); err != nil {
		return stored{}, fmt.Errorf("nats: a stored message without a time: %w", err)
	}
	return e, nil
}

// fetch reads messages of a queue by their sequences; nil for one that is not
// there.
func (s *store) fetch(ctx context.Context, h *handle, seqs []uint64) (msgs []*natsgo.Msg, err error) {
	err = s.do(ctx, "reading messages", func(ctx context.Context) error {
		msgs, err = s.fetchOnce(ctx, h, seqs)
		return err
	})
	return msgs, err
}

// fetchOnce asks for all messages at once. A replica may not have one yet that
// the stream has, and even the leader may store it after another replica has: so
// what is beyond the leader's last is not gone but still to come.
func (s *store) fetchOnce(ctx context.Context, h *handle, seqs []uint64) ([]*natsgo.Msg, error) {
	inbox := s.nc.NewInbox() + "."
	sub, err := s.nc.SubscribeSync(inbox + "*")
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe()
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, err
	}
	s.asking(ctx, "$JS.API.DIRECT.GET."+h.stream)
	for i, seq := range seqs {
		req := fmt.Appendf(nil, `{"seq":%d}`, seq)
		if err := s.nc.PublishRequest("$JS.API.DIRECT.GET."+h.stream, inbox+strconv.Itoa(i), req); err != nil {
			return nil, err
		}
	}
	msgs := make([]*natsgo.Msg, len(seqs))
	var missing []int
	for range seqs {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, err
		}
		i, err := strconv.Atoi(m.Subject[len(inbox):])
		if err != nil || i < 0 || i >= len(seqs) {
			return nil, fmt.Errorf("nats: reading %s: an answer to %q", h.stream, m.Subject)
		}
		switch status := m.Header.Get("Status"); status {
		case "":
			msgs[i] = m
		case "404":
			missing = append(missing, i)
		case "503":
			return nil, natsgo.ErrNoResponders
		default:
			return nil, fmt.Errorf("nats: reading %s: status %s %s", h.stream, status, m.Header.Get("Description"))
		}
	}
	if len(missing) == 0 {
		return msgs, nil
	}
	var leader struct {
		State struct {
			LastSeq uint64 `json:"last_seq"`
		} `json:"state"`
	}
	if err := s.call(ctx, "$JS.API.STREAM.INFO."+h.stream, struct{}{}, &leader); err != nil {
		return nil, err
	}
	for _, i := range missing {
		if seqs[i] > leader.State.LastSeq {
			return nil, fmt.Errorf("nats: reading %s: its leader lags: %w", h.stream, natsgo.ErrTimeout)
		}
		_, there, err := s.leaderGet(ctx, h.stream, getRequest{Seq: seqs[i]})
		if err != nil {
			return nil, err
		}
		if there {
			return nil, fmt.Errorf("nats: reading %s: a replica lags: %w", h.stream, natsgo.ErrTimeout)
		}
	}
	return msgs, nil
}
