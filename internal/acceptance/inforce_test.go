package acceptance_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// binder is the other process of TestInForce: it binds and unbinds the queue
// and says so once the call has returned.
func binder(ctx context.Context, conn *polymq.Conn, in *bufio.Scanner) error {
	for in.Scan() {
		if err := bindOrUnbind(ctx, conn, in.Text()); err != nil {
			return err
		}
		fmt.Println("done")
	}
	return in.Err()
}

func bindOrUnbind(ctx context.Context, conn *polymq.Conn, command string) error {
	verb, key, _ := strings.Cut(command, " ")
	b := routing.Binding{Exchange: "x", Queue: "q", Key: key}
	if verb == "bind" {
		return conn.Bind(ctx, b)
	}
	return conn.Unbind(ctx, b)
}

// Promise 9: what one process binds or unbinds is in force for the publishes
// of another as soon as the call has returned, also for messages that match
// nothing before or after.
func TestInForce(t *testing.T) {
	rounds := 200
	if s := os.Getenv("POLYMQ_INFORCE_ROUNDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("POLYMQ_INFORCE_ROUNDS is %q, want a number", s)
		}
		rounds = n
	}
	for _, scheme := range []string{"mem", "amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			url := testbroker.URL(t, scheme)
			// Two publishing connections: the change must reach both.
			conns := []*polymq.Conn{open(t, url), open(t, url)}
			declare(t, conns[0], routing.Topology{
				Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic}},
				Queues:    []routing.Queue{{Name: "q"}},
			})
			var pubs []*polymq.Publisher
			for _, c := range conns {
				pubs = append(pubs, publisher(t, c, "x"))
			}

			var command func(string)
			if scheme == "mem" {
				// Memory ends at the process: a connection of its own it is.
				other := open(t, url)
				command = func(s string) {
					if err := bindOrUnbind(t.Context(), other, s); err != nil {
						t.Fatal(err)
					}
				}
			} else {
				p := start(t, "binder", url)
				command = func(s string) { p.say(t, s); p.hear(t) }
			}

			began := time.Now()
			misrouted, published := 0, 0
			publish := func(round int, key string, want error) {
				for i, pub := range pubs {
					err := pub.Publish(t.Context(), &polymq.Message{Key: key, ID: fmt.Sprint(key, i)})
					if err == nil {
						published++
					}
					if !errors.Is(err, want) {
						if misrouted++; misrouted < 5 {
							t.Errorf("round %d, connection %d: publish gave %v, want %v", round, i, err, want)
						}
					}
				}
			}
			for round := range rounds {
				key := fmt.Sprintf("k.%d", round)
				command("bind " + key)
				publish(round, key, nil)
				command("unbind " + key)
				publish(round, key, polymq.ErrUnroutable)
			}
			t.Logf("%d rounds in %v, %d misrouted", rounds, time.Since(began).Round(time.Millisecond), misrouted)
			if misrouted > 0 {
				t.Errorf("%d publishes were misrouted", misrouted)
			}

			// What was confirmed is in the queue, once.
			sub := subscriber(t, conns[0], "q", 256)
			ctx := within(t, time.Minute)
			seen := make(map[string]bool)
			for range published {
				d, err := sub.Receive(ctx)
				if err != nil {
					t.Fatalf("after %d of %d messages: %v", len(seen), published, err)
				}
				if seen[d.ID] {
					t.Fatalf("message %s is there twice", d.ID)
				}
				seen[d.ID] = true
				if err := d.Ack(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if err := sub.Close(ctx); err != nil {
				t.Fatal(err)
			}
			if n, err := conns[0].Purge(ctx, "q"); err != nil || n != 0 {
				t.Fatalf("%d messages more than were confirmed, %v", n, err)
			}
		})
	}
}
