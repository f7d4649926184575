package mem

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

var (
	brokersMu sync.Mutex
	brokers   = map[string]*broker{}
)

// broker is what connections of one name share.
type broker struct {
	mu     sync.Mutex
	spaces map[string]*space // by vhost
	stores map[*store]struct{}
}

// space is a namespace of a broker.
type space struct {
	topology topology

	mu     sync.Mutex
	queues map[string]*queue // by incarnation
}

func connect(name, vhost string, cfg driver.Config) *store {
	brokersMu.Lock()
	b := brokers[name]
	if b == nil {
		b = &broker{spaces: map[string]*space{}, stores: map[*store]struct{}{}}
		brokers[name] = b
	}
	brokersMu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	sp := b.spaces[vhost]
	if sp == nil {
		sp = &space{queues: map[string]*queue{}}
		sp.topology.init()
		b.spaces[vhost] = sp
	}
	s := &store{broker: b, space: sp, cfg: cfg, consumers: map[*consumer]struct{}{}}
	b.stores[s] = struct{}{}
	return s
}

// find returns the broker's parts as they are now.
func find(name string) (spaces []*space, stores []*store) {
	brokersMu.Lock()
	b := brokers[name]
	brokersMu.Unlock()
	if b == nil {
		return nil, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, sp := range b.spaces {
		spaces = append(spaces, sp)
	}
	for s := range b.stores {
		stores = append(stores, s)
	}
	return spaces, stores
}

var (
	errSevered   = errors.New("the connection was severed")
	errRestarted = errors.New("the broker was restarted")
)

// Sever cuts every connection to a broker, as a broken network does: what
// subscribers hold goes back to its queues at once, and the connections come
// back. It does nothing where no broker has the name.
func Sever(name string) {
	_, stores := find(name)
	for _, s := range stores {
		s.sever(errSevered)
	}
}

// Restart makes a broker forget what a restart makes brokers forget: transient
// queues and their messages, transient messages, and what subscribers held,
// which goes back to its queues. The connections come back. It does nothing
// where no broker has the name.
func Restart(name string) {
	spaces, stores := find(name)
	for _, sp := range spaces {
		sp.restart()
	}
	for _, s := range stores {
		s.sever(errRestarted)
	}
}

// Remove forgets a broker with all that it holds. Connections that are still
// open keep what they share; the next one to open finds a new broker.
func Remove(name string) {
	brokersMu.Lock()
	defer brokersMu.Unlock()
	delete(brokers, name)
}

func (sp *space) restart() {
	for _, q := range sp.all() {
		if q.def.Transient {
			_ = sp.remove(q, emulate.DeleteOptions{}) // without conditions it cannot fail
		} else {
			q.restart()
		}
	}
}

// remove deletes a queue's storage and ends its consumers.
func (sp *space) remove(q *queue, o emulate.DeleteOptions) error {
	if err := q.remove(o); err != nil {
		return err
	}
	sp.mu.Lock()
	delete(sp.queues, q.def.Incarnation)
	sp.mu.Unlock()
	return nil
}

func (sp *space) all() []*queue {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return slices.Collect(maps.Values(sp.queues))
}

func (sp *space) find(incarnation string) *queue {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return sp.queues[incarnation]
}
