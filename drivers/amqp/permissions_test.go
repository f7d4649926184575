package amqp

import (
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// documented makes the users that doc.go shows, in the vhost of a URL, and
// returns the URL of one by name.
func documented(t *testing.T, broker string) func(user string) string {
	t.Helper()
	doc, err := os.ReadFile("doc.go")
	check(t, err)
	u, err := url.Parse(broker)
	check(t, err)
	vhost, users := u.Path[1:], map[string]bool{}
	for line := range strings.Lines(string(doc)) {
		text, ok := strings.CutPrefix(line, "//\trabbitmqctl set_permissions -p shop ")
		if !ok {
			continue
		}
		f := strings.Fields(text)
		rights, err := json.Marshal(map[string]string{"configure": f[1], "write": f[2], "read": f[3]})
		check(t, err)
		users[f[0]] = true
		manage(t, u, "/api/users/"+f[0]+vhost, `{"password":"secret","tags":"management"}`)
		manage(t, u, "/api/permissions/"+vhost+"/"+f[0]+vhost, string(rights))
	}
	return func(user string) string {
		if !users[user] {
			t.Fatalf("doc.go shows no user %s", user)
		}
		of := *u
		of.User = url.UserPassword(user+vhost, "secret")
		return of.String()
	}
}

// TestPermissions: with the permissions that doc.go names everybody can do what
// it says, and hears what is missing for the rest.
func TestPermissions(t *testing.T) {
	t.Parallel()
	of := documented(t, testbroker.URL(t, "amqp"))
	admin := openURL(t, of("admin"))
	topology := routing.Topology{
		Exchanges: []routing.Exchange{{Name: "orders", Kind: routing.Direct}, {Name: "dead", Kind: routing.Fanout}},
		Queues:    []routing.Queue{{Name: "q", DeadLetterExchange: "dead", BestEffortDeadLetter: true}, {Name: "dead"}},
		Bindings:  []routing.Binding{{Exchange: "orders", Queue: "q", Key: "k"}, {Exchange: "dead", Queue: "dead"}},
	}
	check(t, admin.Declare(ctxOf(t), topology))

	for _, user := range []string{"app", "plain"} {
		c := openURL(t, of(user))
		if err := c.Verify(ctxOf(t), topology); err != nil {
			t.Errorf("%s: Verify: %v", user, err)
		}
		check(t, publish(t, publisherOf(t, c, "orders"), driver.Message{Key: "k"}))
		s := subscribe(t, c, "q", 1)
		settle(t, s, receive(t, s), driver.Nack)
		settle(t, s, receive(t, s), driver.Reject)
		dead := subscribe(t, c, "dead", 1)
		settle(t, dead, receive(t, dead), driver.Ack)
		delayed := driver.Message{Key: "dead", Delay: 10 * time.Millisecond}
		if user == "app" {
			check(t, publish(t, publisherOf(t, c, ""), delayed))
			settle(t, dead, receive(t, dead), driver.Ack)
		} else if err := publish(t, publisherOf(t, c, ""), delayed); !errors.Is(err, driver.ErrPermission) {
			t.Errorf("%s: a delayed message: %v, want ErrPermission", user, err)
		}
		check(t, s.Close(ctxOf(t)))
		check(t, dead.Close(ctxOf(t)))
		if _, err := c.Purge(ctxOf(t), "q"); err != nil {
			t.Errorf("%s: Purge: %v", user, err)
		}
		for name, tc := range map[string]struct {
			err   error
			right string
		}{
			"Declare a queue":     {c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "other"}}}), "configure"},
			"Declare an exchange": {c.Declare(ctxOf(t), routing.Topology{Exchanges: []routing.Exchange{{Name: "y", Kind: routing.Fanout}}}), "configure"},
			"DeleteQueue":         {c.DeleteQueue(ctxOf(t), "dead", driver.DeleteOptions{}), "configure"},
			"DeleteExchange":      {c.DeleteExchange(ctxOf(t), "orders", driver.DeleteOptions{}), "configure"},
		} {
			refusedFor(t, user+": "+name, tc.err, tc.right)
		}
	}

	bare, _, _ := strings.Cut(of("plain"), "?")
	if err := openURL(t, bare).Verify(ctxOf(t), routing.Topology{Exchanges: topology.Exchanges, Queues: topology.Queues}); err != nil {
		t.Errorf("Verify without the management API: %v", err)
	}
	c := openURL(t, of("orderer"))
	check(t, publish(t, publisherOf(t, c, "orders"), driver.Message{Key: "k"}))
	refusedFor(t, "publishing elsewhere", publish(t, publisherOf(t, c, "dead"), driver.Message{}), "write")
	_, err := c.Subscriber(ctxOf(t), driver.SubscriberConfig{Queue: "q", Prefetch: 1})
	refusedFor(t, "consuming", err, "read")
	_, err = c.Purge(ctxOf(t), "q")
	refusedFor(t, "Purge", err, "read")
	refusedFor(t, "Bind", c.Bind(ctxOf(t), []routing.Binding{{Exchange: "orders", Queue: "dead", Key: "z"}}), "write")
	refusedFor(t, "Unbind", c.Unbind(ctxOf(t), topology.Bindings[:1]), "write")
	refusedFor(t, "Bind exchanges", c.Bind(ctxOf(t), []routing.Binding{{Exchange: "dead", ToExchange: "orders"}}), "read on the binding's exchange")
	check(t, publish(t, publisherOf(t, c, "orders"), driver.Message{Key: "k"}))
	check(t, admin.Verify(ctxOf(t), topology))
}

func refusedFor(t *testing.T, what string, err error, right string) {
	t.Helper()
	if !errors.Is(err, driver.ErrPermission) || !strings.Contains(err.Error(), "needs the permission "+right) {
		t.Errorf("%s: %v, want ErrPermission that names %s", what, err, right)
	}
}
