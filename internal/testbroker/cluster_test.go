package testbroker

import (
	"context"
	"net/http"
	"testing"
)

// TestCluster: each kind of cluster has a leader, and another one when that is
// killed; the one that was comes back, and all act as one again.
func TestCluster(t *testing.T) {
	hold := map[string]func(*testing.T, *Cluster){
		"amqp": func(t *testing.T, c *Cluster) {
			err := manage(t.Context(), c.Nodes[0].URL(), http.MethodPut, "/api/queues/%2F/q", `{"durable":true,"arguments":{"x-queue-type":"quorum"}}`)
			if err != nil {
				t.Fatal(err)
			}
		},
		"nats": func(t *testing.T, c *Cluster) {
			addReplicated(t, natsAt(t, c.Nodes[0].URL()), "S")
		},
	}
	for scheme := range clusterKinds {
		t.Run(scheme, func(t *testing.T) {
			c := StartCluster(t, scheme)
			if f := hold[scheme]; f != nil {
				f(t, c)
			}
			first := c.Leader()
			first.Kill()
			if second := c.Leader(); first == second {
				t.Fatal("who was killed leads on")
			}
			first.Start()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := c.peers.joined(ctx, c.kind); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func addReplicated(t *testing.T, c *natsConn, name string) {
	t.Helper()
	err := c.request("$JS.API.STREAM.CREATE."+name, map[string]any{"name": name, "subjects": []string{name}, "num_replicas": 3}, nil)
	if err != nil {
		t.Fatal(err)
	}
}
