package redis

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

func TestFullMemory(t *testing.T) {
	b := testbroker.Start(t, "redis")
	conn, _, st := dialStates(t, b.URL())
	state := func(want driver.State) {
		t.Helper()
		for ctx := ctxT(t); ; {
			select {
			case got := <-st.c:
				if got == want {
					return
				}
			case <-ctx.Done():
				t.Fatalf("the state %v was not told", want)
			}
		}
	}
	briefly := func() context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	binding := routing.Binding{Exchange: "x", Queue: "q", Key: "k"}
	if err := conn.Declare(ctxT(t), routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Direct}},
		Queues:    []routing.Queue{{Name: "q"}, {Name: "unused"}},
		Bindings:  []routing.Binding{binding},
	}); err != nil {
		t.Fatal(err)
	}
	if err := publish(t, conn, "q", text("a")); err != nil {
		t.Fatal(err)
	}
	if err := raw(t, b.URL()).ConfigSet(ctxT(t), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	// As on RabbitMQ, publishers wait.
	if err := publishCtx(briefly(), t, conn, "q", text("b")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Publish: %v", err)
	}
	state(driver.Blocked)
	// What takes messages away still works.
	sub := subscribe(t, conn, "q", 1)
	settle(t, sub, driver.Ack, expect(t, sub, "a")...)
	info(t, conn, "q", driver.QueueInfo{Consumers: 1})
	if err := conn.DeleteQueue(ctxT(t), "unused", driver.DeleteOptions{}); err != nil {
		t.Errorf("DeleteQueue: %v", err)
	}
	if err := conn.Unbind(ctxT(t), []routing.Binding{binding}); err != nil {
		t.Errorf("Unbind: %v", err)
	}
	if err := conn.DeleteExchange(ctxT(t), "x", driver.DeleteOptions{}); err != nil {
		t.Errorf("DeleteExchange: %v", err)
	}
	if err := conn.Bind(briefly(), []routing.Binding{{Exchange: "amq.direct", Queue: "q", Key: "k"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Bind: %v", err)
	}
	left, err := conn.Topology(ctxT(t))
	if err != nil || len(left.Queues) != 1 || len(left.Exchanges) != 0 || len(left.Bindings) != 0 {
		t.Errorf("left: %+v, %v", left, err)
	}
	if err := raw(t, b.URL()).ConfigSet(ctxT(t), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if err := publish(t, conn, "q", text("c")); err != nil {
		t.Errorf("Publish once there is room: %v", err)
	}
	state(driver.Connected)
}

// TestFullMemoryIsToldAsLongAsItIs: a lease can be renewed with a full memory, which
// does not say that there is room; and who does not publish hears of it, too.
func TestFullMemoryIsToldAsLongAsItIs(t *testing.T) {
	b := testbroker.Start(t, "redis")
	conn, s, _ := dialStates(t, b.URL())
	limit := func(bytes string) {
		t.Helper()
		if err := raw(t, b.URL()).ConfigSet(ctxT(t), "maxmemory", bytes).Err(); err != nil {
			t.Fatal(err)
		}
	}
	declare := func(ctx context.Context, name string) error {
		return conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: name}}})
	}
	if err := declare(ctxT(t), "q"); err != nil {
		t.Fatal(err)
	}
	limit("1")
	briefly, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := declare(briefly, "more"); !errors.Is(err, context.DeadlineExceeded) || !s.full.Load() {
		t.Fatalf("Declare: %v, full %v", err, s.full.Load())
	}
	renew := func() {
		t.Helper()
		if err := s.RenewLease(ctxT(t), "client", emulate.Version{}); err != nil && !errors.Is(err, emulate.ErrStale) {
			t.Fatal(err)
		}
	}
	if renew(); !s.full.Load() {
		t.Error("a lease that was renewed made the memory count as free")
	}
	limit("0")
	if renew(); s.full.Load() {
		t.Error("a memory that is free counts as full")
	}
	s.full.Store(true)
	if err := declare(ctxT(t), "more"); err != nil || s.full.Load() {
		t.Errorf("Declare once there is room: %v, full %v", err, s.full.Load())
	}
}
