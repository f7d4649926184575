package amqp

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestApartEndsWithCtx: a broker that hangs does not hold a call longer than its
// ctx.
func TestApartEndsWithCtx(t *testing.T) {
	t.Parallel()
	link := testbroker.Proxy(t, testbroker.URL(t, "amqp"))
	sep := "?"
	if strings.Contains(link.URL(), "?") {
		sep = "&"
	}
	c := openURL(t, link.URL()+sep+"heartbeat=1h") // which would end it, too
	defer link.Stall(false)
	ctx, cancel := context.WithCancel(ctxOf(t))
	ended := make(chan error, 1)
	go func() {
		ended <- c.apart(ctx, func(ch *amqp091.Channel) error {
			link.Stall(true)
			cancel()
			return ch.ExchangeDeclarePassive("amq.direct", "direct", true, false, false, false, nil)
		})
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the end of ctx", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it has not ended")
	}
}

// TestRestoreWithoutPlugin: what cannot be made anew, since its plugin is gone,
// does not keep the connection, nor the rest, from coming back.
func TestRestoreWithoutPlugin(t *testing.T) {
	t.Parallel()
	url := testbroker.URL(t, "amqp")
	c, other := openURL(t, url), openURL(t, url)
	check(t, c.Declare(ctxOf(t), routing.Topology{Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Fanout, Transient: true}}}))
	c.declared.Add(routing.Topology{Exchanges: []routing.Exchange{{Name: "plugged", Kind: "x-polymq-none", Transient: true}}})
	p := publisherOf(t, c, "x")
	check(t, other.DeleteExchange(ctxOf(t), "x", driver.DeleteOptions{}))
	c.publish.mu.Lock()
	w := c.publish.wire
	c.publish.mu.Unlock()
	w.cut()
	if err := publish(t, p, driver.Message{}); !errors.Is(err, driver.ErrUnroutable) {
		t.Errorf("a publish to an exchange without bindings that was made anew: %v", err)
	}
}
