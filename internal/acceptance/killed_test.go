package acceptance_test

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

const held, sent = 10, 30

// holder is the process that TestKilledHolder kills: it takes messages, says
// which, and settles none.
func holder(ctx context.Context, conn *polymq.Conn, _ *bufio.Scanner) error {
	sub, err := conn.Subscriber(ctx, "q", &polymq.SubscriberOptions{Prefetch: held})
	if err != nil {
		return err
	}
	var ids []string
	for len(ids) < held {
		d, err := sub.Receive(ctx)
		if err != nil {
			return err
		}
		ids = append(ids, d.ID)
	}
	fmt.Println(strings.Join(ids, " "))
	select {}
}

// Promises 13 and 15: what a process held when it was killed with -9 reaches
// another consumer within the lease, with one more attempt.
func TestKilledHolder(t *testing.T) {
	for _, scheme := range []string{"amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel() // it is waiting for a lease to end, mostly
			url := testbroker.URL(t, scheme)
			if scheme != "amqp" { // RabbitMQ has no lease: it sees the connection end
				url += "&lease=5s"
			}
			conn := open(t, url)
			declare(t, conn, routing.Topology{Queues: []routing.Queue{{Name: "q"}}})
			pub := publisher(t, conn, "")
			for i := range sent {
				if err := pub.Publish(t.Context(), &polymq.Message{ID: fmt.Sprintf("m%02d", i), Key: "q", Body: []byte("body")}); err != nil {
					t.Fatal(err)
				}
			}

			p := start(t, "holder", url)
			attempt := make(map[string]int)
			for id := range strings.FieldsSeq(p.hear(t)) {
				attempt[id] = 2
			}
			if len(attempt) != held {
				t.Fatalf("the other process holds %d messages", len(attempt))
			}
			p.kill()

			// The lease, and time for a loaded machine.
			lease := conn.Features().Lease
			ctx := within(t, lease+20*time.Second)
			killed := time.Now()
			sub := subscriber(t, conn, "q", sent)
			got := make(map[string]bool)
			for len(got) < sent {
				d, err := sub.Receive(ctx)
				if err != nil {
					t.Fatalf("%v after the kill, with a lease of %v: %d of %d messages: %v", time.Since(killed).Round(time.Millisecond), lease, len(got), sent, err)
				}
				if got[d.ID] {
					t.Fatalf("%s came twice", d.ID)
				}
				got[d.ID] = true
				if want := max(attempt[d.ID], 1); d.Attempt != want {
					t.Errorf("%s: attempt %d, want %d", d.ID, d.Attempt, want)
				}
				if string(d.Body) != "body" {
					t.Errorf("%s: body %q", d.ID, d.Body)
				}
				if err := d.Ack(ctx); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("all %d there %v after the kill, with a lease of %v", sent, time.Since(killed).Round(time.Millisecond), lease)
		})
	}
}
