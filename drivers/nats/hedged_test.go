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
	port := strings.TrimPrefix(info.CachedInfo().Cluster.Leader, "n")
	leader := slices.IndexFunc(c.Nodes, func(b *testbroker.Broker) bool { return strings.HasSuffix(b.URL(), ":"+port) })
	if leader < 0 {
		t.Fatalf("the leader's port is %q", port)
	}
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
