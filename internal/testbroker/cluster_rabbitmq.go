package testbroker

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// rabbitCluster is three nodes. All names of theirs are addresses, so a port
// mapper and a cookie are all that they need to find one another.
type rabbitCluster struct{ rabbitMQ }

func (rabbitCluster) servers() ([]kind, int, int) {
	return []kind{portMapper{}, rabbitMQ{}, rabbitMQ{}, rabbitMQ{}}, 1, 4
}

func (rabbitCluster) join(context.Context, *peers) error { return nil }

func (rabbitCluster) joined(ctx context.Context, p *peers) error {
	for _, s := range p.nodes {
		var nodes []struct {
			Name    string
			Running bool
		}
		if err := ask(ctx, rabbitMQ{}.url(s), "/api/nodes", &nodes); err != nil {
			return err
		}
		running := 0
		for _, n := range nodes {
			if n.Running {
				running++
			}
		}
		if running != len(p.nodes) {
			return fmt.Errorf("%s knows %d of %d running nodes", nodeName(s), running, len(p.nodes))
		}
	}
	return nil
}

func (rabbitCluster) clusterURL(p *peers) string {
	var managements []string
	for _, s := range p.nodes {
		managements = append(managements, s.address(managementPort))
	}
	return fmt.Sprintf("amqp://polymq:%s@%s/%%2F?management=http://%s", p.nodes[0].password, addresses(p.nodes), strings.Join(managements, ","))
}

func (rabbitCluster) led(context.Context, *peers) ([]string, error) { return nil, nil }

func (rabbitCluster) leads(ctx context.Context, p *peers, _ []string) ([]int, error) {
	var queues []struct{ Leader, Node string }
	err := p.oneOf(ctx, func(ctx context.Context, s *server) error {
		return ask(ctx, rabbitMQ{}.url(s), "/api/queues", &queues)
	})
	if err != nil {
		return nil, err
	}
	leads := make([]int, len(p.nodes))
	for _, q := range queues {
		if i := slices.IndexFunc(p.nodes, func(s *server) bool { return nodeName(s) == q.Leader || q.Leader == "" && nodeName(s) == q.Node }); i >= 0 {
			leads[i]++
		}
	}
	return leads, nil
}
