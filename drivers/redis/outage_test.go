package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// drainAll receives until the sentinel and returns the bodies.
func drainAll(t *testing.T, sub driver.Subscriber, sentinel string) []string {
	t.Helper()
	var bodies []string
	buf := make([]*driver.Delivery, 100)
	for {
		n, err := sub.Receive(ctxT(t), buf)
		if err != nil {
			t.Fatalf("after %d: %v", len(bodies), err)
		}
		for _, d := range buf[:n] {
			settle(t, sub, driver.Ack, d)
			if string(d.Message.Body) == sentinel {
				return bodies
			}
			bodies = append(bodies, string(d.Message.Body))
		}
	}
}

// TestKilledUnderLoad: a server that is killed and comes back loses nothing
// that it had confirmed, and no retry leaves a second copy.
func TestKilledUnderLoad(t *testing.T) {
	b := testbroker.Start(t, "redis")
	conn, _, st := dialStates(t, b.URL())
	safe(t, b)
	declare(t, conn, "q")
	const publishers, each = 8, 400
	var wg sync.WaitGroup
	errs := make(chan error, publishers)
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				if err := publish(t, conn, "q", text(fmt.Sprintf("%d %d", p, i))); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	for range 2 {
		time.Sleep(150 * time.Millisecond) // amid the load
		b.Restart()
		safe(t, b)
	}
	wg.Wait()
	select {
	case err := <-errs:
		t.Fatal(err)
	default:
	}
	if err := publish(t, conn, "q", text("end")); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, conn, "q", 200)
	next := make([]int, publishers)
	bodies := drainAll(t, sub, "end")
	for _, body := range bodies {
		var p, i int
		if _, err := fmt.Sscan(body, &p, &i); err != nil {
			t.Fatal(err)
		}
		if i != next[p] {
			t.Fatalf("publisher %d: got message %d, want %d", p, i, next[p])
		}
		next[p]++
	}
	if len(bodies) != publishers*each {
		t.Fatalf("%d messages, want %d", len(bodies), publishers*each)
	}
	for _, want := range []driver.State{driver.Disconnected, driver.Connected} {
		select {
		case got := <-st.c:
			if got != want {
				t.Fatalf("state %v, want %v", got, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("no state %v", want)
		}
	}
}

// TestConsumingOverRestart: what is held and acknowledged around a restart is
// neither lost nor left over.
func TestConsumingOverRestart(t *testing.T) {
	b := testbroker.Start(t, "redis")
	safe(t, b)
	conn, _ := dial(t, b.URL())
	declare(t, conn, "q")
	var ms []*driver.Message
	for i := range 2000 {
		ms = append(ms, text(fmt.Sprint(i)))
	}
	if err := publish(t, conn, "q", ms...); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, conn, "q", 100)
	seen := map[string]int{}
	for len(seen) < 2000 {
		d := receive(t, sub)
		seen[string(d.Message.Body)]++
		if err := sub.Settle(ctxT(t), d, driver.Ack, 0); err != nil && !errors.Is(err, driver.ErrLost) {
			t.Fatal(err)
		}
		if len(seen) == 500 {
			b.Restart()
		}
	}
	info(t, conn, "q", driver.QueueInfo{Consumers: 1})
	for body, n := range seen {
		if n > 1 {
			t.Errorf("%s came %d times: its hold outlived the restart", body, n)
		}
	}
}

func TestCallsWaitForTheServer(t *testing.T) {
	b := testbroker.Start(t, "redis")
	conn, _ := dial(t, b.URL())
	declare(t, conn, "q")
	b.Kill()
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	begin := time.Now()
	if _, err := conn.Inspect(short(), "q"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Inspect: %v", err)
	}
	if err := publishCtx(short(), t, conn, "q", text("x")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Publish: %v", err)
	}
	if err := conn.Health(ctxT(t)); err == nil {
		t.Error("Health is nil without a server")
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the calls took %v", took)
	}
	b.Start()
	if err := publish(t, conn, "q", text("y")); err != nil {
		t.Fatal(err)
	}
}

// TestCloseWithoutServer: a settlement that cannot be sent does not keep Close,
// whose ctx has no end of its own.
func TestCloseWithoutServer(t *testing.T) {
	link := testbroker.Proxy(t, testbroker.URL(t, "redis"))
	conn, _ := dial(t, link.URL())
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a")); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, conn, "q", 10)
	held := expect(t, sub, "a")
	link.Refuse(true)
	link.Cut()
	settle(t, sub, driver.Ack, held...)
	done := make(chan error, 1)
	go func() { done <- sub.Close(context.Background()) }()
	select {
	case err := <-done:
		if !errors.Is(err, driver.ErrUnconfirmed) {
			t.Errorf("Close: %v", err)
		}
	case <-time.After(3 * closeTimeout):
		t.Fatal("Close has not ended")
	}
	link.Refuse(false)
}

// TestStalled: ctx ends a call also while the connection is open and silent.
func TestStalled(t *testing.T) {
	link := testbroker.Proxy(t, testbroker.URL(t, "redis"))
	conn, _ := dial(t, link.URL())
	declare(t, conn, "q")
	sub := subscribe(t, conn, "q", 10)
	link.Stall(true)
	for name, f := range map[string]func(context.Context) error{
		"Publish": func(ctx context.Context) error { return publishCtx(ctx, t, conn, "q", text("x")) },
		"Inspect": func(ctx context.Context) error { _, err := conn.Inspect(ctx, "q"); return err },
		"Receive": func(ctx context.Context) error {
			_, err := sub.Receive(ctx, make([]*driver.Delivery, 1))
			return err
		},
	} {
		ctx, cancel := context.WithCancel(context.Background())
		stop := time.AfterFunc(200*time.Millisecond, cancel)
		begin := time.Now()
		if err := f(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%s took %v after its ctx had ended", name, took)
		}
		stop.Stop()
		cancel()
	}
	link.Stall(false)
	if err := publish(t, conn, "q", text("y")); err != nil {
		t.Fatal(err)
	}
}

// TestRefusedConnection: what goes to several queues at once is not taken for
// stored where the server lets nobody in.
func TestRefusedConnection(t *testing.T) {
	b := testbroker.Start(t, "redis")
	conn, _ := dial(t, b.URL())
	queues := []string{"q0", "q1", "q2", "q3", "q4"}
	declare(t, conn, queues...)
	ctx := ctxT(t)
	p, err := conn.Publisher(ctx, driver.PublisherConfig{})
	if err != nil {
		t.Fatal(err)
	}
	c := raw(t, b.URL())
	pipe := c.Pipeline()
	pipe.ConfigSet(ctx, "requirepass", "another")
	pipe.Do(ctx, "CLIENT", "KILL", "SKIPME", "yes")
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	w := waiter{make(chan *driver.Publishing, len(queues))}
	var batch []*driver.Publishing
	for _, q := range queues {
		batch = append(batch, &driver.Publishing{Message: &driver.Message{Key: q}, ID: q, Owner: w})
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	p.Publish(ctx, batch, true)
	for range queues {
		select {
		case p := <-w.c:
			if p.Err() == nil {
				t.Errorf("%s: confirmed", p.ID)
			}
		case <-ctx.Done(): // not confirmed
		}
	}
}

func TestGroupDestroyed(t *testing.T) {
	url := testbroker.URL(t, "redis")
	conn, s := dial(t, url)
	declare(t, conn, "q")
	sub := subscribe(t, conn, "q", 10)
	streams, err := s.calls().Keys(ctxT(t), s.cfg.prefix+":*}").Result()
	if err != nil || len(streams) != 1 {
		t.Fatal(streams, err)
	}
	if err := s.calls().XGroupDestroy(ctxT(t), streams[0], group).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.Receive(ctxT(t), make([]*driver.Delivery, 1)); !errors.Is(err, driver.ErrNotFound) {
		t.Fatalf("Receive: %v", err)
	}
	_ = sub.Close(ctxT(t))
}

// TestDeletedUnderReader: a subscriber that waits in a queue hears that it is gone, though
// the server says to who waits but that the stream is.
func TestDeletedUnderReader(t *testing.T) {
	b := testbroker.Start(t, "redis")
	for _, q := range []routing.Queue{{}, {MaxPriority: 1}, {SingleActiveConsumer: true}} {
		conn, s := dial(t, with(b.URL(), "vhost="+random(4)))
		q.Name = "q"
		declareQueues(t, conn, q)
		sub := subscribe(t, conn, "q", 10)
		c := onlyConsumer(t, s)
		waiting(t, s.calls())
		if _, err := s.fcall(ctxT(t), c.fns.delete, c.key, "0", "0"); err != nil {
			t.Fatal(err)
		}
		if _, err := sub.Receive(ctxT(t), make([]*driver.Delivery, 1)); !errors.Is(err, driver.ErrNotFound) {
			t.Errorf("%+v: Receive: %v", q, err)
		}
		if err := sub.Close(ctxT(t)); err != nil {
			t.Errorf("%+v: Close: %v", q, err)
		}
	}
}

// TestNothingUnaccounted: publishing, consuming, giving back and purging at
// once; what was not purged came exactly once as settled.
func TestNothingUnaccounted(t *testing.T) {
	conn, _ := dial(t, testbroker.URL(t, "redis"))
	declare(t, conn, "q")
	const publishers, each = 4, 300
	var mu sync.Mutex
	settled := map[string]int{}
	ctx, cancel := context.WithCancel(ctxT(t))
	defer cancel()
	var consumers, producers sync.WaitGroup
	for i := range 3 {
		sub := subscribe(t, conn, "q", 20)
		consumers.Go(func() {
			buf := make([]*driver.Delivery, 7)
			for {
				n, err := sub.Receive(ctx, buf)
				if err != nil {
					return
				}
				for _, d := range buf[:n] {
					if len(d.Message.Body)%3 == i && d.Attempt == 1 {
						_ = sub.Settle(ctxT(t), d, driver.Nack, time.Duration(i)*5*time.Millisecond)
						continue
					}
					mu.Lock()
					settled[string(d.Message.Body)]++
					mu.Unlock()
					_ = sub.Settle(ctxT(t), d, driver.Ack, 0)
				}
			}
		})
	}
	for p := range publishers {
		producers.Go(func() {
			for i := range each {
				if err := publish(t, conn, "q", text(fmt.Sprintf("%d %d", p, i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	purged := 0
	for range 20 {
		n, err := conn.Purge(ctxT(t), "q")
		if err != nil {
			t.Fatal(err)
		}
		purged += n
		got, err := conn.Inspect(ctxT(t), "q")
		if err != nil || got.Ready < 0 || got.Unsettled < 0 || got.Unsettled > 3*20 || got.Consumers != 3 {
			t.Fatalf("Inspect: %+v, %v", got, err)
		}
	}
	producers.Wait()
	info(t, conn, "q", driver.QueueInfo{Consumers: 3})
	cancel()
	consumers.Wait()
	for body, n := range settled {
		if n != 1 {
			t.Errorf("%q was settled %d times", body, n)
		}
	}
	if len(settled)+purged != publishers*each {
		t.Errorf("%d settled and %d purged of %d", len(settled), purged, publishers*each)
	}
}
