package nats

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

const (
	// format is the version of what is stored. A newer one is refused.
	format = "1"

	metaFormat    = "polymq-format"
	metaNamespace = "polymq-namespace"
	metaEpoch     = "polymq-epoch"
	metaQueue     = "polymq-queue"
	metaReplicas  = "polymq-replicas"

	// tombstoneTTL is how long the removal of an element can be read back, and
	// deltaAge how old the version may be from which a delta is read: a reader
	// with an older one may have missed a tombstone and reads everything.
	tombstoneTTL = time.Hour
	deltaAge     = tombstoneTTL / 2

	// leaseTTL removes a client's lease record: twice what emulate asks for.
	leaseTTL = 20 * emulate.LeaseTime
)

// topology is what the store knows of its namespace's topology stream.
type topology struct {
	mu      sync.Mutex
	known   emulate.Version // a version that was the current one at since
	since   time.Time
	stamp   time.Time // when the version's message was stored; zero: unknown
	recheck bool      // the connection was lost since known was seen
}

// confirmed notes that v was the current version when a request was sent.
func (t *topology) confirmed(v emulate.Version, at, stamp time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known != v {
		t.stamp = stamp
	} else if !stamp.IsZero() {
		t.stamp = stamp
	}
	t.known, t.since, t.recheck = v, at, false
}

func (t *topology) reconnected() {
	t.mu.Lock()
	t.recheck = true
	t.mu.Unlock()
}

// delta reports whether what changed since v can be read.
func (t *topology) delta(v emulate.Version) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	age := time.Since(t.since)
	wall := time.Now().Round(0).Sub(t.since.Round(0))
	return t.known == v && !t.recheck && max(age, wall) < deltaAge
}

// ground is the topology stream as it stands now, made if it is missing.
type ground struct {
	stream, epoch, prefix string
	replicas              int
	last                  uint64 // its leader's last sequence
}

func (s *store) ground(ctx context.Context) (ground, error) {
	name := s.names.topologyStream()
	g := ground{stream: name}
	err := s.do(ctx, "reading the topology's stream", func(ctx context.Context) error {
		stream, err := s.js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			stream, err = s.makeGround(ctx)
		}
		if err != nil {
			return err
		}
		info := stream.CachedInfo()
		meta := info.Config.Metadata
		if err := checkFormat(name, meta); err != nil {
			return err
		}
		if meta[metaNamespace] != s.opt.vhost {
			return fmt.Errorf("stream %s belongs to the namespace %q", name, meta[metaNamespace])
		}
		g.epoch, g.replicas, g.last = meta[metaEpoch], info.Config.Replicas, info.State.LastSeq
		g.prefix = s.names.topology(g.epoch)
		return nil
	})
	return g, err
}

func (s *store) makeGround(ctx context.Context) (jetstream.Stream, error) {
	epoch := rand.Text()
	prefix := s.names.topology(epoch)
	cfg := jetstream.StreamConfig{
		Name:               s.names.topologyStream(),
		Description:        "polymq: the exchanges, queues and bindings of a namespace",
		Subjects:           []string{prefix + ".v", prefix + ".e.*", prefix + ".l.*"},
		MaxMsgsPerSubject:  1,
		Storage:            jetstream.FileStorage,
		Replicas:           s.opt.replicas,
		AllowDirect:        true,
		AllowMsgTTL:        true,
		AllowAtomicPublish: true,
		// Republished when it is stored, so that who hears of it finds it.
		RePublish: &jetstream.RePublish{Source: prefix + ".v", Destination: s.names.changed(), HeadersOnly: true},
		Metadata:  map[string]string{metaFormat: format, metaNamespace: s.opt.vhost, metaEpoch: epoch},
	}
	var stream jetstream.Stream
	err := again(ctx, func() (err error) {
		stream, err = s.js.CreateStream(ctx, cfg)
		return err
	})
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) || hasCode(err, codeStreamExists) {
		return s.js.Stream(ctx, s.names.topologyStream()) // another client was faster
	}
	return stream, err
}

func checkFormat(stream string, meta map[string]string) error {
	switch have := meta[metaFormat]; have {
	case format:
		return nil
	case "":
		return fmt.Errorf("stream %s was not made by polymq: choose another ?vhost=, or remove the stream", stream)
	default:
		return fmt.Errorf("stream %s has format %s, written by a newer polymq: this version knows %s; update it", stream, have, format)
	}
}

// version reads the current version from the leader.
func (s *store) current(ctx context.Context, g ground) (v emulate.Version, stamp time.Time, err error) {
	err = s.do(ctx, "reading the topology's version", func(ctx context.Context) error {
		m, _, err := s.leaderGet(ctx, g.stream, getRequest{LastFor: g.prefix + ".v"})
		v, stamp = emulate.Version{Epoch: g.epoch, N: m.seq}, m.at
		return err
	})
	return v, stamp, err
}

// LoadTopology reads the stream in the order of its sequence, which shows each
// element's last state and nothing half done: a batch is visible as a whole
// and ends with the version's message, an element that changes while the pages
// are read comes again further on, and a replica that lags only ends its page
// early. So it reads on until it has seen the version that the leader named,
// and nothing of a later one.
func (s *store) LoadTopology(ctx context.Context, since emulate.Version) (emulate.Changes, error) {
	g, err := s.ground(ctx)
	if err != nil {
		return emulate.Changes{}, err
	}
	sent := time.Now()
	v, stamp, err := s.current(ctx, g)
	if err != nil {
		return emulate.Changes{}, err
	}
	from, full := since.N+1, false
	if since.Epoch != g.epoch || since.N > v.N || !s.topology.delta(since) {
		from, full = 1, true
	}
	c := emulate.Changes{Full: full, Version: emulate.Version{Epoch: g.epoch}}
	if !full {
		c.Version = since
	}
	elements := map[string][]byte{}
	element := g.prefix + ".e."
	for last := uint64(0); c.Version.N < v.N || last > c.Version.N; {
		var more bool
		err := s.do(ctx, "reading the topology", func(ctx context.Context) error {
			next, m, err := s.page(ctx, g.stream, getRequest{Seq: from}, func(e stored) {
				if name, ok := strings.CutPrefix(e.subject, element); ok {
					elements[elementName(name)] = e.data
					last = e.seq
				} else if strings.HasSuffix(e.subject, ".v") {
					c.Version.N, stamp = e.seq, e.at
				}
			})
			if err != nil {
				return err
			}
			more = m
			from = next
			return nil
		})
		if err != nil {
			return emulate.Changes{}, err
		}
		if !more && c.Version.N < v.N {
			select { // a replica that lags
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
				return emulate.Changes{}, ctx.Err()
			}
		}
	}
	for name, data := range elements {
		if len(data) > 0 {
			c.Elements = append(c.Elements, emulate.Element{Name: name, Data: data})
		} else if !full {
			c.Elements = append(c.Elements, emulate.Element{Name: name})
		}
	}
	s.topology.confirmed(c.Version, sent, stamp)
	return c, nil
}

// An element's name is one token: its dots become underscores, which it does
// not have.
func elementToken(name string) string { return strings.ReplaceAll(name, ".", "_") }
func elementName(token string) string { return strings.ReplaceAll(token, "_", ".") }

func (s *store) ApplyTopology(ctx context.Context, at emulate.Version, elements []emulate.Element) (emulate.Version, error) {
	if len(elements) > emulate.MaxElements {
		return emulate.Version{}, fmt.Errorf("%d topology elements in one step: at most %d", len(elements), emulate.MaxElements)
	}
	prefix := s.names.topology(at.Epoch)
	batch := make([]*natsgo.Msg, 0, len(elements)+1)
	for _, e := range elements {
		m := &natsgo.Msg{Subject: prefix + ".e." + elementToken(e.Name), Header: natsgo.Header{}, Data: e.Data}
		if len(e.Data) == 0 {
			m.Header["Nats-TTL"] = []string{tombstoneTTL.String()}
		}
		batch = append(batch, m)
	}
	batch = append(batch, &natsgo.Msg{Subject: prefix + ".v", Header: natsgo.Header{
		"Nats-Expected-Last-Subject-Sequence": {strconv.FormatUint(at.N, 10)},
	}})
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
			s.topology.confirmed(v, sent, time.Time{})
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

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publishBatch stores messages in one atomic step, provided that the
// conditions in them hold, and returns the sequence of the last. The client
// library has no such call; a batch is three headers, an empty answer to its
// first message and an ordinary one to its last.
func (s *store) publishBatch(ctx context.Context, batch []*natsgo.Msg) (seq uint64, err error) {
	if len(batch) == 1 {
		return s.publishOne(ctx, batch[0])
	}
	id := rand.Text()
	for i, m := range batch {
		m.Header["Nats-Batch-Id"] = []string{id}
		m.Header["Nats-Batch-Sequence"] = []string{strconv.Itoa(i + 1)}
	}
	last := len(batch) - 1
	batch[last].Header["Nats-Batch-Commit"] = []string{"1"}
	first, err := s.nc.RequestMsgWithContext(ctx, batch[0])
	if err != nil {
		return 0, err
	}
	if len(first.Data) > 0 {
		if _, err := parseAck(first.Data); err != nil {
			return 0, err
		}
	}
	for _, m := range batch[1:last] {
		if err := s.nc.PublishMsg(m); err != nil {
			return 0, err
		}
	}
	return s.publishOne(ctx, batch[last])
}

func (s *store) publishOne(ctx context.Context, m *natsgo.Msg) (uint64, error) {
	reply, err := s.nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return 0, err
	}
	return parseAck(reply.Data)
}

func (s *store) WatchTopology(ctx context.Context, changed func()) error {
	err := s.do(ctx, "watching the topology", func(ctx context.Context) error {
		_, err := s.nc.Subscribe(s.names.changed(), func(*natsgo.Msg) { changed() })
		if err != nil {
			return err
		}
		return s.nc.FlushWithContext(ctx)
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.watchers = append(s.watchers[:len(s.watchers):len(s.watchers)], changed)
	s.mu.Unlock()
	return nil
}

// leaseRecord is what the stream keeps of a lease.
type leaseRecord struct {
	Client  string `json:"client"`
	Version uint64 `json:"version"`
}

// RenewLease stores the record on condition that the version's message is
// still the one of v. The record's subject names the epoch, so that a renewal
// that belongs to a stream that was removed finds nobody.
func (s *store) RenewLease(ctx context.Context, client string, v emulate.Version) error {
	if err := s.recheck(ctx, v); err != nil {
		return err
	}
	prefix := s.names.topology(v.Epoch)
	m := &natsgo.Msg{
		Subject: prefix + ".l." + token(client),
		Header: natsgo.Header{
			"Nats-Expected-Last-Subject-Sequence":         {strconv.FormatUint(v.N, 10)},
			"Nats-Expected-Last-Subject-Sequence-Subject": {prefix + ".v"},
			"Nats-TTL": {leaseTTL.String()},
		},
	}
	var err error
	if m.Data, err = json.Marshal(leaseRecord{Client: client, Version: v.N}); err != nil {
		return err
	}
	for {
		sent := time.Now()
		err := s.once(ctx, func(ctx context.Context) error {
			_, err := s.publishOne(ctx, m)
			return err
		})
		switch {
		case err == nil:
			s.topology.confirmed(v, sent, time.Time{})
			return nil
		case hasCode(err, codeWrongLastSequence):
			return emulate.ErrStale
		case hasCode(err, codeBusy):
			if err := wait(ctx, time.Millisecond); err != nil {
				return err
			}
			continue
		case errors.Is(err, natsgo.ErrNoResponders):
			g, gerr := s.ground(ctx)
			if gerr != nil {
				return gerr
			}
			if g.epoch != v.Epoch {
				return emulate.ErrStale
			}
		case !passing(err) || errors.Is(err, driver.ErrClosed):
			return fmt.Errorf("renewing the topology lease: %w", wrap(err))
		}
		// Renewing twice is harmless.
		if werr := wait(ctx, 20*time.Millisecond); werr != nil {
			return fmt.Errorf("renewing the topology lease: %w: %w", werr, err)
		}
	}
}

// recheck makes sure, after a connection was lost, that the server did not
// lose the version with it: a power failure can take back what was written
// since the last sync, and the sequence is then given to other messages. The
// time at which the version's message was stored tells them apart.
func (s *store) recheck(ctx context.Context, v emulate.Version) error {
	t := &s.topology
	t.mu.Lock()
	due, stamp := t.recheck && t.known == v && v.N > 0, t.stamp
	t.mu.Unlock()
	if !due {
		return nil
	}
	sent := time.Now()
	var m stored
	var ok bool
	err := s.do(ctx, "reading the topology's version", func(ctx context.Context) (err error) {
		m, ok, err = s.leaderGet(ctx, s.names.topologyStream(), getRequest{LastFor: s.names.topology(v.Epoch) + ".v"})
		return err
	})
	if err != nil && !errors.Is(err, driver.ErrNotFound) {
		return err
	}
	if err != nil || !ok || m.seq != v.N || stamp.IsZero() || !m.at.Equal(stamp) {
		return emulate.ErrStale
	}
	t.confirmed(v, sent, stamp)
	return nil
}

// Leases reads the records as of the leader's last sequence. A stream with one
// replica is its own leader; with more, a replica that lags could leave a
// client out, so the leader is asked record by record.
//
// JetStream cannot forget a lease while clients still count on it, so
// restarted is negative. A server that is killed has handed every confirmed
// write to the kernel. A machine that loses power forgets what it had not
// synced (sync_interval, two minutes by default), but it is then away for
// longer than a lease lasts, and recheck finds a version that was lost.
// Replicated streams keep what a majority has; a cluster that is to survive
// the power failure of a majority needs sync_interval: always.
func (s *store) Leases(ctx context.Context) ([]emulate.Lease, time.Duration, error) {
	g, err := s.ground(ctx)
	if err != nil {
		return nil, 0, err
	}
	var leases []emulate.Lease
	add := func(e stored) {
		var r leaseRecord
		if json.Unmarshal(e.data, &r) == nil {
			leases = append(leases, emulate.Lease{Client: r.Client, Version: emulate.Version{Epoch: g.epoch, N: r.Version}})
		}
	}
	filter := g.prefix + ".l.*"
	for from, more := uint64(1), true; more; {
		err := s.do(ctx, "reading the topology leases", func(ctx context.Context) error {
			if g.replicas > 1 {
				m, ok, err := s.leaderGet(ctx, g.stream, getRequest{Seq: from, NextFor: filter})
				if more = ok; ok {
					add(m)
					from = m.seq + 1
				}
				return err
			}
			var page []stored
			next, m, err := s.page(ctx, g.stream, getRequest{Seq: from, NextFor: filter}, func(e stored) { page = append(page, e) })
			if err != nil {
				return err
			}
			for _, e := range page {
				add(e)
			}
			from, more = next, m
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return leases, -1, nil
}

func (s *store) EndLease(ctx context.Context, client string) error {
	g, err := s.ground(ctx)
	if err != nil {
		return err
	}
	return s.do(ctx, "ending the topology lease", func(ctx context.Context) error {
		return s.purge(ctx, g.stream, g.prefix+".l."+token(client))
	})
}

func (s *store) purge(ctx context.Context, stream, subject string) error {
	var reply struct{}
	return s.call(ctx, "$JS.API.STREAM.PURGE."+stream, struct {
		Filter string `json:"filter"`
	}{subject}, &reply)
}
