package testbroker

import (
	"context"
	"fmt"
	"strings"
	"time"
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

// led names the streams and their consumers: each has a leader of its own.
func (natsCluster) led(ctx context.Context, p *peers) (groups []string, err error) {
	err = p.oneOf(ctx, func(ctx context.Context, s *server) error {
		groups, err = groupsBy(ctx, s)
		return err
	})
	return groups, err
}

// groupsBy asks one member; a group is what follows INFO in a subject of the API.
func groupsBy(ctx context.Context, s *server) ([]string, error) {
	c, err := dialNATS(ctx, nats{}.url(s))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	streams, err := c.streams("")
	if err != nil {
		return nil, err
	}
	var groups []string
	for _, stream := range streams {
		groups = append(groups, "STREAM.INFO."+stream)
		var page struct{ Consumers []string }
		if err := c.request("$JS.API.CONSUMER.NAMES."+stream, nil, &page); err != nil {
			return nil, err
		}
		for _, consumer := range page.Consumers {
			group := "CONSUMER.INFO." + stream + "." + consumer
			var info struct{ Cluster struct{ Replicas []any } }
			if err := c.request("$JS.API."+group, nil, &info); err != nil {
				return nil, err
			}
			if len(info.Cluster.Replicas) > 0 { // else nobody takes it over
				groups = append(groups, group)
			}
		}
	}
	return groups, nil
}

func (natsCluster) leads(ctx context.Context, p *peers, led []string) (leads []int, err error) {
	err = p.oneOf(ctx, func(ctx context.Context, s *server) error {
		leads, err = leadsBy(ctx, s, p.nodes, led)
		return err
	})
	return leads, err
}

// infoTime is how long who leads may take to say so. A question that nobody leads to
// answer goes unanswered for ever, and so would not tell when somebody does.
const infoTime = 250 * time.Millisecond

// leadsBy asks by way of one member; the answers come from who leads.
func leadsBy(ctx context.Context, s *server, nodes []*server, led []string) ([]int, error) {
	c, err := dialNATS(ctx, nats{}.url(s))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	leads := make([]int, len(nodes))
	for _, group := range led {
		var info struct{ Cluster struct{ Leader string } }
		if err := c.SetDeadline(time.Now().Add(infoTime)); err != nil {
			return nil, err
		}
		if err := c.request("$JS.API."+group, nil, &info); err != nil {
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
