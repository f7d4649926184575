package amqp

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestRenew: a renewed message comes behind the others as it was delivered, and
// the way there is asked about once.
func TestRenew(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Fanout}},
		Queues:    []routing.Queue{{Name: "q", MaxAttempts: 2}},
		Bindings:  []routing.Binding{{Exchange: "x", Queue: "q"}},
	}))
	check(t, publish(t, publisherOf(t, c, ""), driver.Message{ID: "1", Key: "q"}))
	check(t, publish(t, publisherOf(t, c, "x"), driver.Message{ID: "2", Key: "k"}))
	s := subscribe(t, c, "q", 5).(*subscriber)
	first, second := receive(t, s), receive(t, s)
	s.renew(first.Tag.(*delivery))
	d := receive(t, s)
	if d.Message.ID != "1" || d.Message.Key != "q" || d.Exchange != "" || d.Attempt != 1 || d.Redelivered {
		t.Errorf("got %+v", d)
	}
	if !s.renewals.to.bound.Load() {
		t.Error("the next one asks about the way again")
	}
	s.renew(second.Tag.(*delivery))
	if d := receive(t, s); d.Message.ID != "2" || d.Message.Key != "k" || d.Exchange != "x" {
		t.Errorf("got %+v", d)
	}
}

// TestRenewForbidden: a user who may not bind the queue gets messages as they
// are, and is told so once.
func TestRenewForbidden(t *testing.T) {
	raw := testbroker.URL(t, "amqp")
	admin := openURL(t, raw)
	declare(t, admin, routing.Queue{Name: "q", MaxAttempts: 2})
	u, err := driver.ParseURL(limitedURL(t, raw, `{"configure":"","write":"","read":".*"}`))
	check(t, err)
	var log bytes.Buffer
	dc, err := Driver{}.Open(ctxOf(t), u, driver.Config{Logger: slog.New(slog.NewTextHandler(&log, nil)), OnState: func(driver.State, error) {}})
	check(t, err)
	c := dc.(*Conn)
	for _, id := range []string{"1", "2"} {
		check(t, publish(t, publisherOf(t, admin, ""), driver.Message{ID: id, Key: "q"}))
	}
	s := subscribe(t, c, "q", 5).(*subscriber)
	for _, d := range []*driver.Delivery{receive(t, s), receive(t, s)} {
		s.renew(d.Tag.(*delivery))
		if again := receive(t, s); again != d {
			t.Errorf("handed out is %+v, was %+v", again, d)
		}
		settle(t, s, d, driver.Ack)
	}
	if !s.renewals.forbidden.Load() {
		t.Error("the next one is tried again")
	}
	check(t, c.Close(ctxOf(t)))
	if n := strings.Count(log.String(), "give the user the permissions"); n != 1 {
		t.Errorf("told %d times:\n%s", n, log.String())
	}
}
