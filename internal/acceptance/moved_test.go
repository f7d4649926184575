package acceptance_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// mover is the process that TestKilledMover kills: it gives up what comes, some
// of it at the second attempt only, so that messages are on their way as dead
// letters, as delayed copies and out of delays all the time. It says so once it
// has begun.
func mover(ctx context.Context, conn *polymq.Conn, _ *bufio.Scanner) error {
	return giveUp(ctx, conn, func() { fmt.Println("moving") })
}

func giveUp(ctx context.Context, conn *polymq.Conn, begun func()) error {
	sub, err := conn.Subscriber(ctx, "work", &polymq.SubscriberOptions{Prefetch: 20})
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		d, err := sub.Receive(ctx)
		if err != nil {
			return err
		}
		if strings.HasPrefix(d.ID, "retried") && d.Attempt < 2 {
			err = d.Nack(ctx, 20*time.Millisecond)
		} else {
			err = d.Reject(ctx)
		}
		if err != nil {
			return err
		}
		if first {
			begun()
		}
	}
}

// Promises 13 and 17: a process that moves messages, as dead letters, out of
// delays or for another attempt, is killed with -9 again and again, wherever it
// is in that. Every message arrives where it had to go, and none twice for
// nothing: only what was being moved.
func TestKilledMover(t *testing.T) {
	const each, kills = 150, 6
	for _, scheme := range []string{"amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			url := testbroker.URL(t, scheme)
			if scheme != "amqp" {
				url += "&lease=2s"
			}
			missing := fill(t, url, each)
			for i := range kills {
				// The ones before may have moved all there was.
				conn := open(t, url)
				id := fmt.Sprint("plain-for-", i)
				if err := publisher(t, conn, "").Publish(within(t, time.Minute), &polymq.Message{ID: id, Key: "work"}); err != nil {
					t.Fatal(err)
				}
				missing[id] = "rejected"
				if err := conn.Close(within(t, time.Minute)); err != nil {
					t.Fatal(err)
				}
				p := start(t, "mover", url)
				p.hear(t)
				time.Sleep(rand.N(100 * time.Millisecond))
				p.kill()
			}

			conn := open(t, url)
			ctx := within(t, 2*time.Minute)
			ended := make(chan error, 1)
			work, stop := context.WithCancel(ctx)
			go func() { ended <- giveUp(work, conn, func() {}) }()
			defer func() {
				stop()
				<-ended
			}()
			sub := subscriber(t, conn, "graveyard", 100)
			twice := 0
			for seen := map[string]bool{}; len(missing) > 0; {
				d, err := sub.Receive(ctx)
				if err != nil {
					t.Fatalf("%d messages have not arrived, %v among them: %v", len(missing), any(missing), err)
				}
				if seen[d.ID] {
					twice++
				}
				seen[d.ID] = true
				want, due := missing[d.ID]
				if deaths := d.Deaths(); due && (len(deaths) != 1 || deaths[0].Reason != want || deaths[0].Count != 1) {
					t.Errorf("%s: deaths %+v, want one: %s", d.ID, deaths, want)
				}
				delete(missing, d.ID)
				if err := d.Ack(ctx); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("all there after %d kills, %d messages once more", kills, twice)
		})
	}
}

// fill publishes what a mover has to do, and returns why each message will die.
// Its connection is closed: what is moved after that, others move.
func fill(t *testing.T, url string, each int) (reasons map[string]string) {
	t.Helper()
	ctx := within(t, time.Minute)
	conn, err := polymq.Open(ctx, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	declare(t, conn, routing.Topology{
		Exchanges: []routing.Exchange{{Name: "dead", Kind: routing.Fanout}},
		Queues: []routing.Queue{
			{Name: "work", DeadLetterExchange: "dead"},
			{Name: "brief", DeadLetterExchange: "dead", TTL: 300 * time.Millisecond},
			{Name: "graveyard"},
		},
		Bindings: []routing.Binding{{Exchange: "dead", Queue: "graveyard"}},
	})
	pub, err := conn.Publisher(ctx, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	reasons = map[string]string{}
	var msgs []*polymq.Message
	for i := range each {
		for _, m := range []polymq.Message{
			{ID: "plain", Key: "work"},
			{ID: "retried", Key: "work"},
			{ID: "delayed", Key: "work", Delay: time.Duration(200+10*i) * time.Millisecond},
			{ID: "brief", Key: "brief"},
		} {
			reason := "rejected"
			if m.ID == "brief" {
				reason = "expired"
			}
			m.ID = fmt.Sprintf("%s-%03d", m.ID, i)
			reasons[m.ID] = reason
			msgs = append(msgs, &m)
		}
	}
	if err := pub.Publish(ctx, msgs...); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return reasons
}
