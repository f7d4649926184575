package mem

import (
	"crypto/rand"
	"sync"
	"time"

	"github.com/polymq/polymq/driver/emulate"
)

// keptChanges is how many changes are remembered one by one, beyond as many as
// there are elements.
const keptChanges = 1024

// topology is a namespace's elements under one version, and the leases of the
// clients that route by it.
type topology struct {
	mu       sync.Mutex
	version  emulate.Version
	elements map[string][]byte
	log      []change // the newest changes, oldest first
	base     uint64   // the version before the first of log
	leases   map[string]emulate.Version
	watchers map[*store]func(back bool)
	leader   string // the client that looks after the queues
	term     time.Time
}

// change says that an element was set or removed at version n.
type change struct {
	n    uint64
	name string
}

func (t *topology) init() {
	t.version = emulate.Version{Epoch: rand.Text(), N: 1}
	t.base = 1
	t.elements = map[string][]byte{}
	t.leases = map[string]emulate.Version{}
	t.watchers = map[*store]func(back bool){}
}

func (t *topology) load(since emulate.Version) emulate.Changes {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := emulate.Changes{Version: t.version}
	if since == t.version {
		return out
	}
	if since.Epoch != t.version.Epoch || since.N < t.base || since.N > t.version.N {
		out.Full = true
		for name, data := range t.elements {
			out.Elements = append(out.Elements, emulate.Element{Name: name, Data: data})
		}
		return out
	}
	seen := map[string]bool{}
	for i := len(t.log) - 1; i >= 0 && t.log[i].n > since.N; i-- {
		if name := t.log[i].name; !seen[name] {
			seen[name] = true
			out.Elements = append(out.Elements, emulate.Element{Name: name, Data: t.elements[name]})
		}
	}
	return out
}

func (t *topology) apply(at emulate.Version, elements []emulate.Element) (emulate.Version, error) {
	t.mu.Lock()
	if at != t.version {
		t.mu.Unlock()
		return emulate.Version{}, emulate.ErrStale
	}
	t.version.N++
	for _, e := range elements {
		if e.Data == nil {
			delete(t.elements, e.Name)
		} else {
			t.elements[e.Name] = e.Data
		}
		t.log = append(t.log, change{t.version.N, e.Name})
	}
	if len(t.log) > 2*(keptChanges+len(t.elements)) {
		cut := len(t.log) / 2
		t.base = t.log[cut-1].n
		// A version is remembered whole or not at all.
		for cut < len(t.log) && t.log[cut].n == t.base {
			cut++
		}
		t.log = append([]change(nil), t.log[cut:]...)
	}
	v := t.version
	watchers := make([]func(bool), 0, len(t.watchers))
	for _, changed := range t.watchers {
		watchers = append(watchers, changed)
	}
	t.mu.Unlock()
	for _, changed := range watchers {
		changed(false)
	}
	return v, nil
}

func (t *topology) watch(s *store, changed func(back bool)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.watchers[s] = changed
}

func (t *topology) unwatch(s *store) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.watchers, s)
}

// cameBack tells a connection's watcher that it was lost.
func (t *topology) cameBack(s *store) {
	t.mu.Lock()
	changed := t.watchers[s]
	t.mu.Unlock()
	if changed != nil {
		changed(true)
	}
}

func (t *topology) renew(client string, v emulate.Version) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v != t.version {
		return emulate.ErrStale
	}
	t.leases[client] = v
	return nil
}

func (t *topology) end(client string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.leases, client)
}

// all returns every record. A record whose client vanished without ending it
// cannot be: the client is in this process.
func (t *topology) all() []emulate.Lease {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]emulate.Lease, 0, len(t.leases))
	for client, v := range t.leases {
		out = append(out, emulate.Lease{Client: client, Version: v})
	}
	return out
}

// lead makes the client the leader for the term, unless another one is.
func (t *topology) lead(client string, term time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.leader != client && now.Before(t.term) {
		return false
	}
	t.leader, t.term = client, now.Add(term)
	return term > 0
}
