package redis

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

// documented makes the users that doc.go shows, for the namespace of url, and
// returns their URLs.
func documented(t *testing.T, url string) (admin, app string) {
	t.Helper()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	u, err := driver.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	ns := u.Text("vhost", "default")
	root := raw(t, url)
	lines := 0
	for line := range strings.Lines(string(doc)) {
		text, ok := strings.CutPrefix(line, "//\tACL SETUSER ")
		if !ok {
			continue
		}
		lines++
		args := []any{"ACL", "SETUSER"}
		for _, word := range strings.Fields(strings.ReplaceAll(text, "default", ns)) {
			args = append(args, word)
		}
		args[2] = args[2].(string) + ns
		if err := root.Do(t.Context(), args...).Err(); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	if lines == 0 {
		t.Fatal("doc.go shows no ACL")
	}
	t.Cleanup(func() { root.Do(ctxT(t), "ACL", "DELUSER", "admin"+ns, "app"+ns) })
	_, rest, _ := strings.Cut(url, "@")
	return "redis://admin" + ns + ":password@" + rest, "redis://app" + ns + ":password@" + rest
}

// TestPermissions: with the rights that doc.go names an app can use what is
// there, and nothing but an admin can change it.
func TestPermissions(t *testing.T) {
	brokerURL := testbroker.URL(t, "redis")
	adminURL, appURL := documented(t, brokerURL)
	admin, _ := dial(t, adminURL)
	topology := routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Direct}},
		Queues: []routing.Queue{
			{Name: "q", DeadLetterExchange: "x", DeadLetterKey: "k", BestEffortDeadLetter: true}, {Name: "dead"},
			{Name: "ruled", MaxLength: 10, MaxPriority: 3, SingleActiveConsumer: true},
		},
		Bindings: []routing.Binding{{Exchange: "x", Queue: "dead", Key: "k"}},
	}
	if err := admin.Declare(ctxT(t), topology); err != nil {
		t.Fatal(err)
	}
	app, _ := dial(t, appURL)
	ctx := ctxT(t)
	if err := app.Verify(ctx, topology); err != nil {
		t.Errorf("Verify: %v", err)
	}
	for _, q := range []string{"q", "ruled"} {
		if err := publish(t, app, q, text("1"), text("2"), text("3")); err != nil {
			t.Fatalf("publish to %s: %v", q, err)
		}
		sub := subscribe(t, app, q, 1)
		settle(t, sub, driver.Ack, expect(t, sub, "1")...)
		settle(t, sub, driver.Nack, expect(t, sub, "2")...)
		settle(t, sub, driver.Reject, expect(t, sub, "2")...)
		if _, err := app.Inspect(ctx, q); err != nil {
			t.Errorf("Inspect: %v", err)
		}
		if _, err := app.Purge(ctx, q); err != nil {
			t.Errorf("Purge: %v", err)
		}
		if err := sub.Close(ctx); err != nil {
			t.Errorf("closing a subscriber: %v", err)
		}
	}
	dead := subscribe(t, app, "dead", 1)
	settle(t, dead, driver.Ack, expect(t, dead, "2")...)
	if err := dead.Close(ctx); err != nil {
		t.Errorf("closing a subscriber: %v", err)
	}
	for name, c := range map[string]struct {
		change func() error
		right  string
	}{
		"Declare a queue": {func() error { return app.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "other"}}}) }, "+xgroup|create"},
		"Declare an exchange": {func() error {
			return app.Declare(ctx, routing.Topology{Exchanges: []routing.Exchange{{Name: "y", Kind: routing.Fanout}}})
		}, ":topology"},
		"Bind":           {func() error { return app.Bind(ctx, []routing.Binding{{Exchange: "x", Queue: "q", Key: "z"}}) }, ":topology"},
		"Unbind":         {func() error { return app.Unbind(ctx, topology.Bindings) }, ":topology"},
		"DeleteQueue":    {func() error { return app.DeleteQueue(ctx, "dead", driver.DeleteOptions{}) }, "+unlink"},
		"DeleteExchange": {func() error { return app.DeleteExchange(ctx, "x", driver.DeleteOptions{}) }, ":topology"},
	} {
		err := c.change()
		if !errors.Is(err, driver.ErrPermission) || !strings.Contains(err.Error(), c.right) {
			t.Errorf("%s: %v, want ErrPermission that names %s", name, err, c.right)
		}
	}
	for name, m := range map[string]*driver.Message{"a TTL": {TTL: time.Hour}, "a Delay": {Delay: time.Hour}} {
		if err := publish(t, app, "dead", m); !errors.Is(err, driver.ErrPermission) {
			t.Errorf("the first message with %s: %v, want ErrPermission", name, err)
		}
		if err := publish(t, admin, "dead", m); err != nil {
			t.Errorf("an admin's message with %s: %v", name, err)
		}
		if err := publish(t, app, "dead", m); err != nil {
			t.Errorf("the next message with %s: %v", name, err)
		}
	}
	// What this server is not asked for, being alone.
	for _, command := range [][]any{{"WAIT", 1, 1}, {"CLUSTER", "SLOTS"}} {
		for _, url := range []string{adminURL, appURL} {
			user, _, _ := strings.Cut(strings.TrimPrefix(url, "redis://"), ":")
			if answer, err := raw(t, brokerURL).Do(ctx, append([]any{"ACL", "DRYRUN", user}, command...)...).Text(); err != nil || answer != "OK" {
				t.Errorf("%s may not %v: %s, %v", user, command, answer, err)
			}
		}
	}
	if err := admin.Verify(ctx, topology); err != nil {
		t.Errorf("something of what an app may not change has changed: %v", err)
	}
}

// TestSettlementsRefusedForAWhile: what the server refused to settle is settled once it
// may be, and Close does not wait for that.
func TestSettlementsRefusedForAWhile(t *testing.T) {
	b := testbroker.Start(t, "redis")
	adminURL, appURL := documented(t, b.URL())
	admin, _ := dial(t, adminURL)
	declare(t, admin, "q")
	app, _ := dial(t, appURL)
	u, err := driver.ParseURL(appURL)
	if err != nil {
		t.Fatal(err)
	}
	root := raw(t, b.URL())
	may := func(sign string) {
		t.Helper()
		if err := root.Do(ctxT(t), "ACL", "SETUSER", u.User, sign+"xack", sign+"xdel", sign+"fcall").Err(); err != nil {
			t.Fatal(err)
		}
	}
	refused := func() string { return field(root.Info(ctxT(t), "commandstats").Val(), "cmdstat_xdel") }
	if err := publish(t, app, "q", text("a"), text("b"), text("c")); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, app, "q", 10)
	ds := expect(t, sub, "a", "b", "c")
	if err := sub.(driver.Drainer).Drain(ctxT(t)); err != nil { // no fetch takes them along
		t.Fatal(err)
	}
	before := refused()
	may("-")
	settle(t, sub, driver.Nack, ds[0])
	settle(t, sub, driver.Ack, ds[1])
	until(t, "nothing was refused", func() bool { return refused() != before })
	may("+")
	info(t, app, "q", driver.QueueInfo{Ready: 1, Unsettled: 1, Consumers: 1})
	may("-")
	settle(t, sub, driver.Ack, ds[2])
	if err := sub.Close(ctxT(t)); !errors.Is(err, driver.ErrPermission) {
		t.Errorf("Close: %v, want ErrPermission", err)
	}
	may("+")
}

// TestPermissionsOfTheFirst: who may not make what everything needs is told so.
func TestPermissionsOfTheFirst(t *testing.T) {
	b := testbroker.Start(t, "redis")
	adminURL, appURL := documented(t, b.URL())
	u, err := driver.ParseURL(appURL)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Driver{}.Open(ctxT(t), u, driver.Config{Logger: nopLogger, OnState: func(driver.State, error) {}})
	if !errors.Is(err, driver.ErrPermission) || !strings.Contains(err.Error(), "+function|load") {
		t.Errorf("opening without the library: %v", err)
	}
	dial(t, adminURL)
	app, _ := dial(t, appURL)
	if err := app.Verify(ctxT(t), routing.Topology{}); !errors.Is(err, driver.ErrPermission) || !strings.Contains(err.Error(), ":version") {
		t.Errorf("a namespace that nobody has written to: %v", err)
	}
}
