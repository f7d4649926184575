package amqp

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// openUpgraded is a Conn to a broker that is RabbitMQ 4 by now, or is taken for
// it, with quorum queues as RabbitMQ 3 made them.
func openUpgraded(t *testing.T, raw string, log slog.Handler, queues ...string) *Conn {
	t.Helper()
	c := openLogged(t, raw, log)
	if !c.version.atLeast(4, 0) {
		c.version = parseVersion("4.0.0")
	}
	check(t, c.do(ctxOf(t), func(ch *channel) error {
		for _, q := range queues {
			if _, err := ch.QueueDeclare(q, true, false, false, false, amqp091.Table{argQueueType: typeQuorum}); err != nil {
				return err
			}
		}
		return nil
	}))
	return c
}

// TestDelayAfterUpgrade: delayed messages go on by the queue that RabbitMQ 3
// made, and the log tells what that lacks.
func TestDelayAfterUpgrade(t *testing.T) {
	t.Parallel()
	log := &countingLog{}
	c := openUpgraded(t, testbroker.URL(t, "amqp"), log, dueQueue)
	declare(t, c, routing.Queue{Name: "q"})
	p, s := publisherOf(t, c, ""), subscribe(t, c, "q", 1)
	for range 2 {
		check(t, publish(t, p, driver.Message{Key: "q", Delay: 10 * time.Millisecond}))
		settle(t, s, receive(t, s), driver.Ack)
	}
	if n := log.warnings.Load(); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

// TestDeclareAfterUpgrade: a queue that RabbitMQ 3 made is in conflict, with what
// to do about it, until a policy makes it what is declared.
func TestDeclareAfterUpgrade(t *testing.T) {
	t.Parallel()
	raw := testbroker.URL(t, "amqp")
	c := openUpgraded(t, raw, slog.DiscardHandler, "q")
	plain := routing.Topology{Queues: []routing.Queue{{Name: "q"}}}
	err := c.Declare(ctxOf(t), plain)
	if !errors.Is(err, driver.ErrConflict) || !strings.Contains(err.Error(), "RabbitMQ 3") {
		t.Fatalf("without the policy: %v", err)
	}
	u, err := url.Parse(raw)
	check(t, err)
	manage(t, u, "/api/policies/"+u.Path[1:]+"/upgrade", fmt.Sprintf(`{"pattern":".*","definition":{"delivery-limit":%d},"apply-to":"queues"}`, endless))
	until(t, "the policy is in force", func() bool { return c.endlessByPolicy(ctxOf(t), "q") })
	check(t, c.Declare(ctxOf(t), plain))
	for _, q := range []routing.Queue{{Name: "q", TTL: time.Hour}, {Name: "q", MaxAttempts: 3}} {
		if err := c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{q}}); !errors.Is(err, driver.ErrConflict) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	// More attempts than RabbitMQ 4 gives by itself.
	check(t, publish(t, publisherOf(t, c, ""), driver.Message{Key: "q"}))
	check(t, c.do(ctxOf(t), func(ch *channel) error {
		deliveries, err := ch.Consume("q", "", false, false, false, false, nil)
		if err != nil {
			return err
		}
		for range 30 {
			select {
			case d := <-deliveries:
				if err := d.Reject(true); err != nil {
					return err
				}
			case <-time.After(10 * time.Second):
				return errors.New("the message is gone")
			}
		}
		return nil
	}))
}
