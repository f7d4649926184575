package redis

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	// askEvery is how often it is asked who the servers are: one that hangs
	// answers nothing, and others know that it was replaced.
	askEvery = time.Second
	// askPause is the least time between two of these.
	askPause = 50 * time.Millisecond
)

// finder asks those who know who the servers are.
type finder func(*servers, context.Context) ([]shard, error)

// shard is a range of slots and the address of the server that holds it.
type shard struct {
	from, to int
	addr     string
}

// servers are those that hold the namespace's keys: one, or those that share the
// slots of a cluster. Who they are changes at a failover.
type servers struct {
	s     *store
	now   atomic.Pointer[table]
	first *table        // as found by open
	again chan struct{} // cap 1: ask now

	// Of who asks.
	hosts    []string // the next to be asked first
	turned   time.Time
	troubled bool // something is wrong
	epoch    int  // of what sentinels said
	unknown  bool // nobody knows

	mu     sync.Mutex
	asked  map[string]*goredis.Client // by address
	closed bool
}

// table says which node holds a slot.
type table []span

// span is a range of slots.
type span struct {
	from, to int
	n        *node
}

func (t table) nodes() []*node {
	var all []*node
	for _, sp := range t {
		if !slices.Contains(all, sp.n) {
			all = append(all, sp.n)
		}
	}
	return all
}

// errNowhere says that no server holds a key, as far as is known.
var errNowhere = errors.New("no server of the Redis Cluster holds this slot")

// at is the node that holds a key.
func (s *store) at(key string) (*node, error) { return s.servers.now.Load().at(key) }

func (t table) at(key string) (*node, error) {
	if len(t) == 1 {
		return t[0].n, nil
	}
	return t.holds(slotOf(key))
}

func (t table) holds(slot int) (*node, error) {
	i, _ := slices.BinarySearchFunc(t, slot, func(sp span, slot int) int { return sp.to - slot })
	if i == len(t) || t[i].from > slot {
		return nil, errNowhere
	}
	return t[i].n, nil
}

// shard is the place of the server that held a key when the store was opened.
// Queues of one server share lanes, so that one that hangs holds up no others.
func (v *servers) shard(key string) int {
	n, err := v.first.at(key)
	if err != nil {
		return 0
	}
	return slices.Index(v.first.nodes(), n)
}

func (v *servers) init(s *store) {
	v.s = s
	v.now.Store(&table{})
	v.again = make(chan struct{}, 1)
	v.hosts = s.cfg.addrs
	v.asked = map[string]*goredis.Client{}
}

// hurry has it asked soon who the servers are.
func (v *servers) hurry() {
	select {
	case v.again <- struct{}{}:
	default:
	}
}

func (v *servers) run() {
	timer := time.NewTimer(askEvery)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-v.again:
			v.troubled = true
		case <-v.s.ctx.Done():
			return
		}
		err := v.look(v.s.ctx)
		v.troubled = false
		if v.s.ctx.Err() != nil {
			return
		}
		if (err != nil) != v.unknown {
			v.unknown = err != nil
			if v.unknown {
				v.s.log.Warn("nobody says which Redis servers there are; trying again", "error", err)
			}
		}
		select {
		case <-time.After(askPause):
		case <-v.s.ctx.Done():
			return
		}
		timer.Reset(askEvery)
	}
}

// look finds out who the servers are.
func (v *servers) look(ctx context.Context) error {
	if v.s.cfg.find == nil {
		v.adopt([]shard{{0, slots - 1, v.s.cfg.addrs[0]}})
		return nil
	}
	shards, err := v.s.cfg.find(v, ctx)
	if err == nil {
		v.adopt(shards)
	}
	return err
}

// from is the connection to one who is asked.
func (v *servers) from(addr string) *goredis.Client {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.asked[addr]
	if c == nil {
		c = goredis.NewClient(v.s.cfg.asking(addr))
		v.asked[addr] = c
		if v.closed {
			_ = c.Close()
		}
	}
	return c
}

// turn has another asked first from now on.
func (v *servers) turn() {
	v.turned = time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	if c := v.asked[v.hosts[0]]; c != nil {
		_ = c.Close()
		delete(v.asked, v.hosts[0])
	}
	v.hosts = append(slices.Clone(v.hosts[1:]), v.hosts[0])
}

// asking is how to speak with those who know.
func (c config) asking(addr string) *goredis.Options {
	o := c.options(addr)
	o.PoolSize, o.PoolTimeout = 1, askPause // nobody waits behind one that hangs
	if c.master != "" {
		o.Username, o.Password, o.DB = c.sentinelUser, c.sentinelPassword.Text(), 0
	}
	for _, t := range []*time.Duration{&o.DialTimeout, &o.ReadTimeout, &o.WriteTimeout} {
		*t = min(*t, askEvery)
	}
	return o
}

// adopt goes by what was found. The connections to who is no server any more are
// closed, so that nobody waits there for an answer.
func (v *servers) adopt(shards []shard) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	was := *v.now.Load()
	if slices.EqualFunc(was, shards, func(sp span, sh shard) bool {
		return sp.from == sh.from && sp.to == sh.to && sp.n.addr == sh.addr
	}) {
		return
	}
	nodes := map[string]*node{}
	for _, n := range was.nodes() {
		nodes[n.addr] = n
	}
	var now table
	for _, sh := range shards {
		if nodes[sh.addr] == nil {
			nodes[sh.addr] = newNode(v.s.cfg, sh.addr)
		}
		now = append(now, span{sh.from, sh.to, nodes[sh.addr]})
	}
	if v.first == nil {
		v.first = &now
	}
	v.now.Store(&now)
	present := now.nodes()
	for _, n := range was.nodes() {
		if !slices.Contains(present, n) {
			n.close()
		}
	}
}

// close ends all connections.
func (v *servers) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
	for _, c := range v.asked {
		_ = c.Close()
	}
	for _, n := range v.now.Load().nodes() {
		n.close()
	}
}
