package nats

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// recent are the changes that lie in the version's message, since an atomic
// batch costs a server with one replica some milliseconds, and a message none.
// When they are too many, a batch puts them where elements belong. Each is the
// last of its element.
type recent struct {
	Base    uint64         `json:"base,omitempty"` // the version that has them nowhere else
	Changes []recentChange `json:"changes"`
}

type recentChange struct {
	At   uint64          `json:"at"` // the version that it changed
	Name string          `json:"name"`
	Data json.RawMessage `json:"data,omitempty"` // none: removed
}

// What the version's message may hold.
const (
	maxRecent      = 64
	maxRecentBytes = 16 << 10
)

func parseRecent(n uint64, body []byte) (recent, error) {
	if len(body) == 0 {
		return recent{Base: n}, nil
	}
	var r recent
	if err := json.Unmarshal(body, &r); err != nil {
		return recent{}, fmt.Errorf("nats: the topology's version %d cannot be read: %w", n, err)
	}
	return r, nil
}

// with adds changes to version n; the body is nil where they are too many.
func (r recent) with(n uint64, elements []emulate.Element) (recent, []byte) {
	if len(r.Changes)+len(elements) > maxRecent {
		return r, nil
	}
	next := recent{Base: r.Base}
	changed := make(map[string]bool, len(elements))
	for _, e := range elements {
		changed[e.Name] = true
		next.Changes = append(next.Changes, recentChange{At: n, Name: e.Name, Data: e.Data})
	}
	for _, c := range r.Changes {
		if !changed[c.Name] {
			next.Changes = append(next.Changes, c)
		}
	}
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false) // elements stay as they are
	if err := enc.Encode(next); err != nil || body.Len() > maxRecentBytes {
		return r, nil
	}
	return next, body.Bytes()
}

// settled are all changes, those that come last among them.
func (r recent) settled(elements []emulate.Element) []emulate.Element {
	changed := make(map[string]bool, len(elements))
	for _, e := range elements {
		changed[e.Name] = true
	}
	all := elements[:len(elements):len(elements)]
	for _, c := range r.Changes {
		if !changed[c.Name] {
			all = append(all, emulate.Element{Name: c.Name, Data: c.Data})
		}
	}
	return all
}

// recentAt is what the version's message holds of version v.
func (s *store) recentAt(ctx context.Context, v emulate.Version) (recent, error) {
	if v.N == 0 {
		return recent{}, nil
	}
	if r, ok := s.topology.recall(v); ok {
		return r, nil
	}
	var m stored
	var ok bool
	err := s.do(ctx, "reading the topology's version", func(ctx context.Context) (err error) {
		m, ok, err = s.leaderGet(ctx, s.names.topologyStream(), getRequest{LastFor: s.names.topology(v.Epoch) + ".v"})
		return err
	})
	if isStreamGone(err) || err == nil && (!ok || m.seq != v.N) {
		return recent{}, emulate.ErrStale
	}
	if err != nil {
		return recent{}, err
	}
	return parseRecent(m.seq, m.data)
}

func (t *topology) remember(v emulate.Version, r recent) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.recentOf, t.recent = v, r
}

func (t *topology) recall(v emulate.Version) (recent, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.recent, t.recentOf == v && !t.recheck
}

// ApplyTopology changes the version's message on condition that it is that of
// at: alone, or in a batch with the elements.
func (s *store) ApplyTopology(ctx context.Context, at emulate.Version, elements []emulate.Element) (emulate.Version, error) {
	if len(elements) > emulate.MaxElements {
		return emulate.Version{}, fmt.Errorf("%d topology elements in one step: at most %d", len(elements), emulate.MaxElements)
	}
	was, err := s.recentAt(ctx, at)
	if err != nil {
		return emulate.Version{}, err
	}
	prefix := s.names.topology(at.Epoch)
	version := &natsgo.Msg{Subject: prefix + ".v", Header: natsgo.Header{
		"Nats-Expected-Last-Subject-Sequence": {strconv.FormatUint(at.N, 10)},
	}}
	next, body := was.with(at.N, elements)
	if body != nil {
		version.Data, elements = body, nil
	} else {
		elements = was.settled(elements)
	}
	batch := make([]*natsgo.Msg, 0, len(elements)+1)
	for _, e := range elements {
		m := &natsgo.Msg{Subject: prefix + ".e." + elementToken(e.Name), Header: natsgo.Header{}, Data: e.Data}
		if len(e.Data) == 0 {
			m.Header["Nats-TTL"] = []string{tombstoneTTL.String()}
		}
		batch = append(batch, m)
	}
	batch = append(batch, version)
	for {
		sent := time.Now()
		var seq uint64
		err := s.once(ctx, func(ctx context.Context) (err error) {
			seq, err = s.publishBatch(ctx, batch)
			return err
		})
		v := emulate.Version{Epoch: at.Epoch, N: seq}
		switch {
		case err == nil:
			if body == nil {
				next = recent{Base: seq}
			}
			s.topology.confirmed(v, sent, time.Time{})
			s.topology.remember(v, next)
			return v, nil
		case hasCode(err, codeWrongLastSequence):
			return emulate.Version{}, emulate.ErrStale
		case hasCode(err, codeBusy):
			if err := wait(ctx, time.Millisecond); err != nil {
				return emulate.Version{}, err
			}
			continue
		case errors.Is(err, natsgo.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
			// Nothing was stored. Either the stream is another one by now, or a
			// cluster is choosing its leader.
			g, gerr := s.ground(ctx)
			if gerr != nil {
				return emulate.Version{}, gerr
			}
			if g.epoch != at.Epoch {
				return emulate.Version{}, emulate.ErrStale
			}
			if err := wait(ctx, 50*time.Millisecond); err != nil {
				return emulate.Version{}, err
			}
			continue
		case errors.Is(err, driver.ErrClosed), errors.Is(err, natsgo.ErrReconnectBufExceeded):
			return emulate.Version{}, fmt.Errorf("changing the topology: %w", err)
		case passing(err):
			return emulate.Version{}, fmt.Errorf("changing the topology: %w: %w", driver.ErrUnconfirmed, err)
		}
		return emulate.Version{}, fmt.Errorf("changing the topology: %w", wrap(err))
	}
}
