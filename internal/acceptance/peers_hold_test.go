package acceptance_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
)

// bufferedIsHeld: what waits in a subscriber behind a slow handler goes to nobody
// else, for several leases. A process that stands still for longer than a lease loses
// what it holds, so longer ones are tried before that is a failure.
func bufferedIsHeld(t *testing.T, scheme string) {
	for lease := time.Second; lease <= 8*time.Second; lease *= 2 {
		err := holdBuffered(t, scheme, lease)
		if err == nil {
			return
		}
		t.Logf("with a lease of %v: %v", lease, err)
	}
	t.Error("it was not held with any lease")
}

func holdBuffered(t *testing.T, scheme string, lease time.Duration) error {
	conn := open(t, testbroker.URL(t, scheme)+fmt.Sprint("&lease=", lease))
	declare(t, conn, plain)
	ctx := within(t, time.Minute)
	slow := subscriber(t, conn, "q", 10)
	send(t, ctx, publisher(t, conn, ""), "q", strings.Split("0123456789", "")...)
	first, err := slow.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	await(t, ctx, "all are buffered", func() bool {
		info, err := conn.Inspect(ctx, "q")
		return err == nil && info.Ready == 0
	})
	other := subscriber(t, conn, "q", 10)
	waiting, cancel := context.WithTimeout(ctx, 3*lease)
	defer cancel()
	if d, err := other.Receive(waiting); err == nil {
		return fmt.Errorf("%q came to another", d.Body)
	}
	for i, d := 0, first; ; {
		if err := d.Ack(ctx); err != nil {
			return fmt.Errorf("acknowledging %q: %w", d.Body, err)
		}
		if i++; i == 10 {
			return nil
		}
		if d, err = slow.Receive(ctx); err != nil {
			return fmt.Errorf("%d does not come: %w", i, err)
		}
		if string(d.Body) != fmt.Sprint(i) {
			return fmt.Errorf("received %q, want %d", d.Body, i)
		}
	}
}

// nackedHoldsUpNobody nacks one message for long: the others come.
func nackedHoldsUpNobody(t *testing.T, scheme string) {
	conn := open(t, testbroker.URL(t, scheme))
	declare(t, conn, plain)
	ctx := within(t, time.Minute)
	sub := subscriber(t, conn, "q", 1)
	send(t, ctx, publisher(t, conn, ""), "q", "bad", "1", "2")
	d, err := sub.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Nack(ctx, time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1", "2"} {
		if got := take(t, ctx, sub); got != want {
			t.Errorf("received %q, want %q", got, want)
		}
	}
}

// drainingTakesNothing: what Run gave back when its ctx ended comes to another
// while a handler of Run still works, each message once.
func drainingTakesNothing(t *testing.T, scheme string) {
	conn := open(t, testbroker.URL(t, scheme))
	declare(t, conn, plain)
	ctx := within(t, time.Minute)
	var bodies []string
	for i := range 100 {
		bodies = append(bodies, fmt.Sprint(i))
	}
	send(t, ctx, publisher(t, conn, ""), "q", bodies...)
	sub := subscriber(t, conn, "q", 20)
	taking, stop := context.WithCancel(ctx)
	busy, finish := make(chan struct{}), make(chan struct{})
	ran := make(chan error, 1)
	go func() {
		ran <- sub.Run(taking, func(context.Context, *polymq.Delivery) error {
			close(busy)
			<-finish
			return nil
		})
	}()
	<-busy
	stop()
	rest := subscriber(t, conn, "q", 20)
	seen := map[string]int{}
	for len(seen) < 99 {
		d, err := rest.Receive(ctx)
		if err != nil {
			t.Fatalf("after %d of 99: %v", len(seen), err)
		}
		if seen[string(d.Body)]++; seen[string(d.Body)] > 1 || d.Attempt > 2 {
			t.Errorf("%s came %d times, attempt %d", d.Body, seen[string(d.Body)], d.Attempt)
		}
		if err := d.Ack(ctx); err != nil {
			t.Error(err)
		}
	}
	close(finish)
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
}
