package chaos

import (
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// A Backend is a broker, or several as one, that a run is made on.
type Backend struct {
	Name    string
	scheme  string
	cluster bool
	setup   testbroker.Setup
	// options are what the URL must say so that nothing confirmed is lost.
	options string
	kinds   []kind
	// all is true where nothing is confirmed while a node is away; majority where all
	// goes on with the others.
	all, majority bool
	// settling is how long after the declarations the first kill must wait.
	settling time.Duration
}

// lease is how long what a killed client held is kept from the others.
const lease = 5 * time.Second

const diskSize = 256 << 20

// Backends are all that there are.
var Backends = []Backend{
	{Name: "amqp", scheme: "amqp", kinds: with(alone, memory), settling: forgetful},
	{Name: "nats", scheme: "nats", setup: testbroker.Setup{Disk: diskSize}, options: "lease=5s", kinds: alone},
	{Name: "redis", scheme: "redis", setup: testbroker.Setup{Disk: diskSize, Fsync: true}, options: "lease=5s", kinds: with(alone, memory)},
	{Name: "amqp-cluster", scheme: "amqp", cluster: true, majority: true, kinds: with(together, memory), settling: forgetful},
	{Name: "nats-cluster", scheme: "nats", cluster: true, majority: true, setup: testbroker.Setup{Disk: diskSize}, options: "lease=5s", kinds: together},
	{Name: "redis-cluster", scheme: "redis+cluster", cluster: true, setup: testbroker.Setup{Disk: diskSize}, options: "lease=5s&replicas=1", kinds: with(together, memory)},
	{Name: "redis-sentinel", scheme: "redis+sentinel", cluster: true, setup: testbroker.Setup{Disk: diskSize}, options: "lease=5s&replicas=2", kinds: with(together, memory), all: true},
}

// forgetful: RabbitMQ 3.10 killed within seconds of a declaration can forget it.
const forgetful = 10 * time.Second

const (
	exchange = "chaos"
	small    = "small"
)

// declared is the topology of a run: two queues with one consumer, one with two
// that gets what both get, and one that is mostly full and refuses.
var declared = routing.Topology{
	Exchanges: []routing.Exchange{{Name: exchange, Kind: routing.Topic}},
	Queues: []routing.Queue{
		{Name: "a"}, {Name: "b"}, {Name: "both"},
		{Name: small, MaxLength: 20, Overflow: routing.RejectPublish},
	},
	Bindings: []routing.Binding{
		{Exchange: exchange, Queue: "a", Key: "a.*"},
		{Exchange: exchange, Queue: "b", Key: "b.*"},
		{Exchange: exchange, Queue: "both", Key: "a.#"},
		{Exchange: exchange, Queue: "both", Key: "b.#"},
		{Exchange: exchange, Queue: small, Key: "r.*"},
	},
}

// queuesOf is who consumes what; the names of clients.
var queuesOf = map[string][]string{"c1": {"a", "both", small}, "c2": {"b", "both"}}

// producers and consumers of a run.
var names = []string{"p1", "p2", "c1", "c2"}

// routes is where a message with a key goes, written down once more by hand.
func routes(key string) []string {
	switch key[0] {
	case 'a':
		return []string{"a", "both"}
	case 'b':
		return []string{"b", "both"}
	}
	return []string{small}
}

// A site is the brokers of a run.
type site struct {
	*Backend
	t     testing.TB
	one   *testbroker.Broker  // nil for a cluster
	many  *testbroker.Cluster // nil for one
	links []*testbroker.Link
	away  *away // nil while no node is
}

func (b *Backend) start(t testing.TB) *site {
	s := &site{Backend: b, t: t}
	setup := b.setup
	setup.Linked = true
	if !b.cluster {
		s.one = testbroker.StartWith(t, b.scheme, setup)
		s.links = []*testbroker.Link{s.one.Link()}
		return s
	}
	s.many = testbroker.StartClusterWith(t, b.scheme, setup)
	for _, n := range s.many.Nodes {
		s.links = append(s.links, n.Link())
	}
	return s
}

func (s *site) url() string {
	url := ""
	if s.one != nil {
		url = s.one.URL()
	} else {
		url = s.many.URL()
	}
	switch {
	case s.options == "":
		return url
	case strings.Contains(url, "?"):
		return url + "&" + s.options
	}
	return url + "?" + s.options
}
