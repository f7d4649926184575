package nats

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
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
	metaBook      = "polymq-book"

	// tombstoneTTL is how long the removal of an element can be read back, and
	// deltaAge how long ago the version may have been the current one from which a
	// delta is read: a reader with an older one may have missed a tombstone and
	// reads everything.
	tombstoneTTL = time.Hour
	deltaAge     = tombstoneTTL / 2
	// maxSeen is how many versions are remembered; more are forgotten at once.
	maxSeen = 1024
)

// topology is what the store knows of its namespace's topology stream.
type topology struct {
	mu      sync.Mutex
	known   emulate.Version // the last that was seen to be the current one
	stamp   time.Time       // when its message was stored; zero: unknown
	recheck bool            // the connection was lost since known was seen
	back    time.Time       // when there was one again
	// seen is when versions were current, since the connection was last lost.
	seen map[emulate.Version]time.Time

	recentOf emulate.Version // the version of recent
	recent   recent

	ground   ground // as it was at grounded
	grounded time.Time
}

// confirmed notes that v was the current version when a request was sent.
func (t *topology) confirmed(v emulate.Version, at, stamp time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known != v || !stamp.IsZero() {
		t.stamp = stamp
	}
	t.known = v
	if t.recheck && !at.After(t.back) {
		return // it may have been lost with the connection
	}
	if t.seen == nil || t.recheck || len(t.seen) >= maxSeen {
		t.seen = map[emulate.Version]time.Time{}
	}
	t.seen[v], t.recheck = at, false
}

func (t *topology) reconnected() {
	t.mu.Lock()
	t.recheck, t.back, t.grounded = true, time.Now(), time.Time{}
	t.mu.Unlock()
}

// delta reports whether what changed since v can be read. It need not be the last
// version: of a change of this process's own the hint may come before its copy has it.
func (t *topology) delta(v emulate.Version) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, seen := t.seen[v]
	age := time.Since(at)
	wall := time.Now().Round(0).Sub(at.Round(0))
	return seen && !t.recheck && max(age, wall) < deltaAge
}

// ground is the topology stream as it stands now, made if it is missing.
type ground struct {
	stream, epoch, prefix string
	replicas              int
}

// groundAge is how long the stream is taken to be as it was. That it is still
// there, and of the same epoch, shows in each reading of its version.
const groundAge = 10 * time.Second

// recentGround is the stream as it was not long ago.
func (s *store) recentGround(ctx context.Context) (ground, error) {
	t := &s.topology
	t.mu.Lock()
	g, at := t.ground, t.grounded
	t.mu.Unlock()
	if time.Since(at) < groundAge {
		return g, nil
	}
	return s.ground(ctx)
}

func (s *store) ground(ctx context.Context) (ground, error) {
	name := s.names.topologyStream()
	g := ground{stream: name}
	began := time.Now()
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
		g.epoch, g.replicas = meta[metaEpoch], info.Config.Replicas
		g.prefix = s.names.topology(g.epoch)
		return nil
	})
	if err == nil {
		s.topology.mu.Lock()
		s.topology.ground, s.topology.grounded = g, began
		s.topology.mu.Unlock()
	}
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
		err = again(ctx, func() (err error) { // another client was faster
			stream, err = s.js.Stream(ctx, cfg.Name)
			return err
		})
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

// current reads the current version's message from the leader.
func (s *store) current(ctx context.Context, g ground) (m stored, err error) {
	err = s.do(ctx, "reading the topology's version", func(ctx context.Context) (err error) {
		m, _, err = s.leaderGet(ctx, g.stream, getRequest{LastFor: g.prefix + ".v"})
		return err
	})
	return m, err
}

// LoadTopology reads the version's message, which has the recent changes, and
// the stream where more has changed.
//
// The stream is read in the order of its sequence, which shows each element's
// last state and nothing half done: a batch is visible as a whole and ends with
// the version's message, an element that changes while the pages are read comes
// again further on, and a replica that lags only ends its page early. So it
// reads on until it has seen the version that the leader named, and nothing of
// a later one.
func (s *store) LoadTopology(ctx context.Context, since emulate.Version) (emulate.Changes, error) {
	g, err := s.recentGround(ctx)
	if err != nil {
		return emulate.Changes{}, err
	}
	sent := time.Now()
	version, err := s.current(ctx, g)
	if errors.Is(err, driver.ErrNotFound) || err == nil && version.seq == 0 { // it may be another one by now
		if g, err = s.ground(ctx); err != nil {
			return emulate.Changes{}, err
		}
		sent = time.Now()
		version, err = s.current(ctx, g)
	}
	if err != nil {
		return emulate.Changes{}, err
	}
	top, err := parseRecent(version.seq, version.data)
	if err != nil {
		return emulate.Changes{}, err
	}
	full := since.Epoch != g.epoch || since.N > version.seq || !s.topology.delta(since)
	elements := map[string][]byte{}
	if full || since.N < top.Base {
		from := since.N + 1
		if full {
			from = 1
		}
		if version, err = s.read(ctx, g, from, version, elements); err != nil {
			return emulate.Changes{}, err
		}
		if top, err = parseRecent(version.seq, version.data); err != nil {
			return emulate.Changes{}, err
		}
	}
	for _, c := range top.Changes {
		if full || c.At >= since.N {
			elements[c.Name] = c.Data
		}
	}
	c := emulate.Changes{Full: full, Version: emulate.Version{Epoch: g.epoch, N: version.seq}}
	for name, data := range elements {
		if len(data) > 0 {
			c.Elements = append(c.Elements, emulate.Element{Name: name, Data: data})
		} else if !full {
			c.Elements = append(c.Elements, emulate.Element{Name: name})
		}
	}
	s.topology.confirmed(c.Version, sent, version.at)
	s.topology.remember(c.Version, top)
	return c, nil
}

// read puts the elements that lie in the stream from a sequence on into a map,
// as of the version whose message it returns, which is not older than version.
func (s *store) read(ctx context.Context, g ground, from uint64, version stored, elements map[string][]byte) (stored, error) {
	var seen stored
	element := g.prefix + ".e."
	for last := uint64(0); seen.seq < version.seq || last > seen.seq; {
		var more bool
		err := s.do(ctx, "reading the topology", func(ctx context.Context) error {
			next, m, err := s.page(ctx, g.stream, getRequest{Seq: from}, func(e stored) {
				if name, ok := strings.CutPrefix(e.subject, element); ok {
					elements[elementName(name)] = e.data
					last = e.seq
				} else if strings.HasSuffix(e.subject, ".v") {
					seen = e
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
			return stored{}, err
		}
		if !more && seen.seq < version.seq {
			if err := wait(ctx, 5*time.Millisecond); err != nil { // a replica that lags
				return stored{}, err
			}
		}
	}
	return seen, nil
}

// An element's name is one token: its dots become underscores, which it does
// not have.
func elementToken(name string) string { return strings.ReplaceAll(name, ".", "_") }
func elementName(token string) string { return strings.ReplaceAll(token, "_", ".") }

func (s *store) WatchTopology(ctx context.Context, changed func(back bool)) error {
	err := s.do(ctx, "watching the topology", func(ctx context.Context) error {
		_, err := s.nc.Subscribe(s.names.changed(), func(*natsgo.Msg) { changed(false) })
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

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
