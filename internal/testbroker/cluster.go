package testbroker

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Cluster is several brokers that act as one, of one test.
type Cluster struct {
	// Nodes are what holds messages: three RabbitMQs or NATS servers, three Redis
	// masters with a replica each, or a Redis with two replicas, which three
	// sentinels watch. Who leads changes; see Leader.
	Nodes []*Broker

	t        testing.TB
	kind     clusterKind
	peers    *peers
	rejoined sync.WaitGroup
}

// A clusterKind is a way to make a cluster of one sort of broker.
type clusterKind interface {
	title() string
	// servers are its kinds, in the order in which they are launched, and where
	// the three or more that hold messages begin and end among them.
	servers() (kinds []kind, from, to int)
	// join makes one of the servers, which have started, where they do not do so by
	// themselves.
	join(ctx context.Context, p *peers) error
	// joined is nil once they act as one.
	joined(ctx context.Context, p *peers) error
	// clusterURL addresses all of them.
	clusterURL(p *peers) string
	// led names what there is to lead, where that takes more than leads to tell.
	led(ctx context.Context, p *peers) ([]string, error)
	// leads is how much of it each node leads: queues, streams or slots.
	leads(ctx context.Context, p *peers, led []string) ([]int, error)
}

// peers are the servers of a cluster; they share a password.
type peers struct {
	servers []*server
	nodes   []*server // those of them that hold messages
}

var clusterKinds = map[string]clusterKind{
	"amqp":           rabbitCluster{},
	"nats":           natsCluster{},
	"redis+cluster":  redisCluster{},
	"redis+sentinel": redisSentinel{},
}

// StartCluster starts a cluster for t alone and returns when it serves: for the
// scheme amqp, nats, redis+cluster or redis+sentinel. All of it is killed and
// its data removed when t ends. Under -short it skips t.
func StartCluster(t testing.TB, scheme string) *Cluster {
	t.Helper()
	return StartClusterWith(t, scheme, Setup{})
}

// StartClusterWith is StartCluster with a setup of each node that holds messages.
func StartClusterWith(t testing.TB, scheme string, setup Setup) *Cluster {
	t.Helper()
	k, ok := clusterKinds[scheme]
	if !ok {
		t.Fatalf("testbroker: no cluster for the scheme %q", scheme)
	}
	if testing.Short() {
		t.Skipf("-short: a cluster of %s is left out", k.title())
	}
	p, err := startPeers(k, setup)
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{t: t, kind: k, peers: p}
	t.Cleanup(func() {
		c.rejoined.Wait()
		p.remove()
	})
	for _, s := range p.nodes {
		c.Nodes = append(c.Nodes, &Broker{t: t, server: s})
	}
	return c
}

// URL addresses the cluster by all of its hosts: on Redis by the sentinels,
// where there are some.
func (c *Cluster) URL() string { return c.kind.clusterURL(c.peers) }

// Namespace is URL with a namespace of its own, as the function URL makes one. It goes
// with the cluster.
func (c *Cluster) Namespace() string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	first := c.peers.nodes[0]
	there, err := first.kind.fresh(ctx, first.kind.url(first), newName())
	if err == nil {
		var u, own *url.URL
		if u, err = url.Parse(c.URL()); err == nil {
			own, err = url.Parse(there)
		}
		if err == nil {
			u.Path, u.RawPath = own.Path, own.RawPath
			q := u.Query()
			if name := own.Query().Get("vhost"); name != "" {
				q.Set("vhost", name)
			}
			u.RawQuery = q.Encode()
			return u.String()
		}
	}
	c.t.Fatalf("testbroker: a namespace in the cluster of %s: %v", c.kind.title(), err)
	return ""
}

// Leader is the node that leads most of what the cluster holds now.
func (c *Cluster) Leader() *Broker {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var leader *Broker
	err := retry(ctx, func(ctx context.Context) error {
		led, err := c.kind.led(ctx, c.peers)
		if err != nil {
			return err
		}
		leads, err := c.kind.leads(ctx, c.peers, led)
		if err != nil {
			return err
		}
		most := 0
		for i, n := range leads {
			if n > leads[most] {
				most = i
			}
		}
		if leads[most] == 0 {
			return fmt.Errorf("no node of %s leads anything", c.kind.title())
		}
		leader = c.Nodes[most]
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return leader
}

func startPeers(k clusterKind, setup Setup) (*peers, error) {
	var err error
	for range 3 { // as startServer
		p := new(peers)
		if err = p.start(k, setup); err == nil {
			return p, nil
		}
		p.remove()
		if !errors.Is(err, errEnded) {
			break
		}
	}
	return nil, fmt.Errorf("cluster of %s: %w", k.title(), err)
}

func (p *peers) start(k clusterKind, setup Setup) error {
	kinds, from, to := k.servers()
	for _, k := range kinds {
		s, err := newServer(k)
		if err != nil {
			return err
		}
		s.peers = p
		p.servers = append(p.servers, s)
		s.password = p.servers[0].password
	}
	p.nodes = p.servers[from:to]
	for _, s := range p.nodes {
		if err := s.prepare(setup); err != nil {
			return err
		}
	}
	for _, s := range p.servers {
		if err := s.kind.launch(s); err != nil {
			return err
		}
	}
	for _, s := range p.servers {
		if err := s.await(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := k.join(ctx, p); err != nil {
		return err
	}
	return p.joined(ctx, k)
}

// joined waits until the servers act as one.
func (p *peers) joined(ctx context.Context, k clusterKind) error {
	return retry(ctx, func(ctx context.Context) error { return k.joined(ctx, p) })
}

// retry calls f until it succeeds, or until ctx ends; a call may take some
// seconds: in a cluster that elects, questions go unanswered.
func retry(ctx context.Context, f func(context.Context) error) error {
	for {
		try, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := f(try)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// oneOf asks the nodes in turn until one answers: the first may be the one that is
// down, or that hangs.
func (p *peers) oneOf(ctx context.Context, ask func(context.Context, *server) error) (err error) {
	for _, s := range p.nodes {
		one, cancel := ctx, context.CancelFunc(func() {})
		if end, ok := ctx.Deadline(); ok {
			one, cancel = context.WithTimeout(ctx, time.Until(end)/2)
		}
		err = ask(one, s)
		cancel()
		if err == nil {
			break
		}
	}
	return err
}

func (p *peers) remove() {
	for _, s := range p.servers {
		s.kill()
	}
	for _, s := range p.servers {
		s.remove()
	}
}

// addresses lists where clients find some servers.
func addresses(servers []*server) string {
	var list []string
	for _, s := range servers {
		list = append(list, "127.0.0.1:"+strconv.Itoa(s.front()))
	}
	return strings.Join(list, ",")
}
