package nats

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// documented is the part of a server's configuration that doc.go shows.
func documented(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, part, ok := strings.Cut(string(doc), "//\tauthorization {")
	part, _, end := strings.Cut(part, "//\t] }")
	if !ok || !end {
		t.Fatal("doc.go shows no authorization")
	}
	return "authorization {" + strings.ReplaceAll(part, "//\t", "") + "] }"
}

func as(user, url string) string {
	return strings.Replace(url, "://", "://"+user+":password@", 1)
}

// TestPermissions: with the rights that doc.go names an app can use what is
// there, and nothing but an admin can change it.
func TestPermissions(t *testing.T) {
	t.Parallel()
	b := testbroker.StartNATS(t, documented(t))
	admin := open(t, as("admin", b.URL()))
	app := open(t, as("app", b.URL()))
	if err := app.Verify(within(t), routing.Topology{}); !errors.Is(err, driver.ErrPermission) || !strings.Contains(err.Error(), "$JS.API.STREAM.CREATE.POLYMQ_default_topology") {
		t.Errorf("a namespace that nobody has written to: %v", err)
	}
	topology := routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Direct}},
		Queues: []routing.Queue{
			{Name: "q", DeadLetterExchange: "x", DeadLetterKey: "k", BestEffortDeadLetter: true}, {Name: "dead"},
			{Name: "ruled", MaxLength: 10, MaxPriority: 3, Overflow: routing.RejectPublish, DeadLetterExchange: "x", DeadLetterKey: "k", BestEffortDeadLetter: true},
		},
		Bindings: []routing.Binding{{Exchange: "x", Queue: "dead", Key: "k"}},
	}
	if err := admin.Declare(within(t), topology); err != nil {
		t.Fatal(err)
	}
	if err := app.Verify(within(t), topology); err != nil {
		t.Errorf("Verify: %v", err)
	}
	p := publisherOf(t, app)
	dead := subscribe(t, app, "dead", 1)
	for _, q := range []string{"q", "ruled"} {
		mustPublish(t, p, q, "1", "2", "3")
		s := subscribe(t, app, q, 1)
		settle(t, s, receive(t, s, 1)[0], driver.Ack, 0)
		settle(t, s, receive(t, s, 1)[0], driver.Nack, 0)
		settle(t, s, receive(t, s, 1)[0], driver.Reject, 0)
		if d := receive(t, dead, 1)[0]; string(d.Message.Body) != "2" {
			t.Errorf("%s: the dead letter is %s", q, d.Message.Body)
		} else {
			settle(t, dead, d, driver.Ack, 0)
		}
		if _, err := app.Inspect(within(t), q); err != nil {
			t.Errorf("Inspect: %v", err)
		}
		if err := s.Close(within(t)); err != nil {
			t.Errorf("closing a subscriber: %v", err)
		}
		if n, err := app.Purge(within(t), q); n != 1 || err != nil {
			t.Errorf("Purge: %d, %v", n, err)
		}
	}
	for name, c := range map[string]struct {
		change  func() error
		subject string
	}{
		"Declare a queue": {func() error {
			return app.Declare(within(t), routing.Topology{Queues: []routing.Queue{{Name: "other"}}})
		}, "$JS.API.STREAM.CREATE.POLYMQ_default_q_"},
		"Declare an exchange": {func() error {
			return app.Declare(within(t), routing.Topology{Exchanges: []routing.Exchange{{Name: "y", Kind: routing.Fanout}}})
		}, "polymq.default.t."},
		"Bind":                 {func() error { return app.Bind(within(t), []routing.Binding{{Exchange: "x", Queue: "q", Key: "z"}}) }, "polymq.default.t."},
		"Unbind":               {func() error { return app.Unbind(within(t), topology.Bindings) }, "polymq.default.t."},
		"DeleteQueue":          {func() error { return app.DeleteQueue(within(t), "dead", driver.DeleteOptions{}) }, "$JS.API.STREAM.DELETE.POLYMQ_default_q_"},
		"DeleteQueue if empty": {func() error { return app.DeleteQueue(within(t), "dead", driver.DeleteOptions{IfEmpty: true}) }, "$JS.API.STREAM.UPDATE.POLYMQ_default_q_"},
		"DeleteExchange":       {func() error { return app.DeleteExchange(within(t), "x", driver.DeleteOptions{}) }, "polymq.default.t."},
	} {
		began := time.Now()
		err := c.change()
		if !errors.Is(err, driver.ErrPermission) || !strings.Contains(err.Error(), "may not publish to "+c.subject) {
			t.Errorf("%s: %v, want ErrPermission that names %s", name, err, c.subject)
		}
		if took := time.Since(began); took > attemptTimeout {
			t.Errorf("%s: refused after %v only", name, took)
		}
	}
	for i, of := range []driver.Conn{app, admin, app} {
		p := publisherOf(t, of)
		o := &outcome{left: 2, done: make(chan struct{})}
		batch := []*driver.Publishing{
			{Message: &driver.Message{Key: "dead", TTL: time.Hour}, ID: "ttl", Owner: o}, {Message: &driver.Message{Key: "dead", Delay: time.Hour}, ID: "delay", Owner: o},
		}
		p.Publish(within(t), batch, true)
		<-o.done
		for _, m := range batch {
			if err := m.Err(); errors.Is(err, driver.ErrPermission) != (i == 0) || i > 0 && err != nil {
				t.Errorf("message %d with a %s: %v", i, m.ID, err)
			}
		}
	}
	if err := admin.Verify(within(t), topology); err != nil {
		t.Errorf("something of what an app may not change has changed: %v", err)
	}
}

// TestPermissionsMissing: who lacks what everybody needs is told so by Open, and
// who may not publish to a queue by the publish.
func TestPermissionsMissing(t *testing.T) {
	t.Parallel()
	b := testbroker.StartNATS(t, `authorization { users = [
		{ user: admin, password: password }
		{ user: mute, password: password, permissions: { publish: ["none"] } }
		{ user: deaf, password: password, permissions: { subscribe: ["none"] } }
		{ user: sender, password: password, permissions: { publish: { deny: ["$JS.API.CONSUMER.MSG.NEXT.>"] } } }
		{ user: holder, password: password, permissions: { publish: { deny: ["$JS.ACK.>"] } } }
		{ user: reader, password: password, permissions: { publish: { deny: ["polymq.default.q.*.m"] } } }
	] }`)
	for user, subject := range map[string]string{"mute": "publish to $JS.API.INFO", "deaf": "subscribe to _INBOX."} {
		u, err := driver.ParseURL(as(user, b.URL()))
		if err != nil {
			t.Fatal(err)
		}
		_, err = openStore(within(t), u, testConfig(t))
		if !errors.Is(err, driver.ErrPermission) || !strings.Contains(err.Error(), subject) {
			t.Errorf("%s: %v, want ErrPermission that names %s", user, err, subject)
		}
	}
	declare(t, open(t, as("admin", b.URL())), routing.Queue{Name: "q"})
	mustPublish(t, publisherOf(t, open(t, as("admin", b.URL()))), "q", "0")
	for user, subject := range map[string]string{"sender": "$JS.API.CONSUMER.MSG.NEXT.", "holder": "$JS.ACK."} {
		s := subscribe(t, open(t, as(user, b.URL())), "q", 1)
		var err error
		for buf := make([]*driver.Delivery, 1); err == nil; { // until what is settled was denied
			if _, err = s.Receive(within(t), buf); err == nil {
				err = s.Settle(within(t), buf[0], driver.Ack, 0)
			}
		}
		if !errors.Is(err, driver.ErrPermission) || !strings.Contains(err.Error(), "publish to "+subject) {
			t.Errorf("%s: %v, want ErrPermission that names %s", user, err, subject)
		}
	}
	for _, err := range publish(t, publisherOf(t, open(t, as("reader", b.URL()))), "q", "1", "2") {
		if !errors.Is(err, driver.ErrPermission) || !strings.Contains(err.Error(), "publish to polymq.default.q.") {
			t.Errorf("publishing without the right: %v", err)
		}
	}
}
