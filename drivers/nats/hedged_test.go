package nats

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// nodeNamed is the place of the node of a cluster that NATS calls so: by its port.
func nodeNamed(t *testing.T, c *testbroker.Cluster, name string) int {
	t.Helper()
	port := strings.TrimPrefix(name, "n")
	i := slices.IndexFunc(c.Nodes, func(b *testbroker.Broker) bool { return strings.HasSuffix(b.URL(), ":"+port) })
	if i < 0 {
		t.Fatalf("no node is named %q", name)
	}
	return i
}

// TestAskedWithoutLeader: a question that is put while a stream has no leader is
// answered when it has one, and who opens a connection meanwhile gets it then.
func TestAskedWithoutLeader(t *testing.T) {
	c := testbroker.StartCluster(t, "nats")
	s := openRaw(t, c.URL())
	declare(t, emulated(t, s), routing.Queue{Name: "q"})
	stream := queueOf(t, s, "q").stream
	info, err := s.js.Stream(within(t), stream)
	if err != nil {
		t.Fatal(err)
	}
	leader := nodeNamed(t, c, info.CachedInfo().Cluster.Leader)
	other := c.Nodes[(leader+1)%len(c.Nodes)]
	c.Nodes[leader].Kill()
	other.Kill()
	// The one that is left does not lead, and cannot.
	for deadline := time.Now().Add(60 * time.Second); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := s.nc.RequestWithContext(ctx, "$JS.API.STREAM.INFO."+stream, nil)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) && s.nc.IsConnected() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the answer without a leader: %v", err)
		}
	}
	left, err := driver.ParseURL(c.Nodes[(leader+2)%len(c.Nodes)].URL())
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 2)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		_, err := s.js.Stream(ctx, stream)
		answered <- err
	}()
	var second *store
	go func() {
		var err error
		second, err = openStore(ctx, left, testConfig(t))
		answered <- err
	}()
	other.Start()
	for range cap(answered) {
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}
	if second != nil {
		second.Close(ctx)
	}
}
