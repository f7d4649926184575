package testbroker

import (
	"context"
	"fmt"
	"strings"
)

// natsCluster is three servers that name one another as routes.
type natsCluster struct{ nats }

func (natsCluster) servers() ([]kind, int, int) { return []kind{nats{}, nats{}, nats{}}, 0, 3 }

// serverName is what a member is called in the answers of the others.
func serverName(s *server) string { return fmt.Sprintf("n%d", s.ports[0]) }

// clusterConf is what a member's configuration has beside a lone server's. Clients
// that come by links are not told of a way around them.
func clusterConf(s *server) string {
	var routes []string
	for _, other := range s.peers.nodes {
		routes = append(routes, fmt.Sprintf("%q", "nats://"+other.address(1)))
	}
	return fmt.Sprintf("server_name: %q\ncluster { name: polymq, listen: %q, routes: [%s], no_advertise: %t }\n", serverName(s), s.address(1), strings.Join(routes, ", "), s.link != nil)
}

func (natsCluster) join(context.Context, *peers) error { return nil }

// joined makes and deletes a stream with three replicas by way of each member:
// then there is a leader, and all know it.
func (natsCluster) joined(ctx context.Context, p *peers) error {
	for _, s := range p.nodes {
		c, err := dialNATS(ctx, nats{}.url(s))
		if err != nil {
			return err
		}
		name := "joined" + serverName(s)
		err = c.request("$JS.API.STREAM.CREATE."+name, map[string]any{"name": name, "subjects": []string{name}, "storage": "memory", "num_replicas": len(p.nodes)}, nil)
		if err == nil {
			err = c.request("$JS.API.STREAM.DELETE."+name, nil, nil)
		}
		c.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (natsCluster) clusterURL(p *peers) string {
	return fmt.Sprintf("nats://polymq:%s@%s?replicas=%d", p.nodes[0].password, addresses(p.nodes), len(p.nodes))
}

func (natsCluster) leads(ctx context.Context, p *peers) ([]int, error) {
	var err error
	for _, s := range p.nodes { // the first may be the one that is down
		var leads []int
		if leads, err = leadsBy(ctx, s, p.nodes); err == nil {
			return leads, nil
		}
	}
	return nil, err
}

// leadsBy asks one member.
func leadsBy(ctx context.Context, s *server, nodes []*server) ([]int, error) {
	c, err := dialNATS(ctx, nats{}.url(s))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	names, err := c.streams("")
	if err != nil {
		return nil, err
	}
	leads := make([]int, len(nodes))
	for _, name := range names {
		var info struct{ Cluster struct{ Leader string } }
		if err := c.request("$JS.API.STREAM.INFO."+name, nil, &info); err != nil {
			return nil, err
		}
		for i, node := range nodes {
			if serverName(node) == info.Cluster.Leader {
				leads[i]++
			}
		}
	}
	return leads, nil
}
