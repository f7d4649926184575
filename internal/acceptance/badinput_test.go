package acceptance_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	amqp091 "github.com/rabbitmq/amqp091-go"
	goredis "github.com/redis/go-redis/v9"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

var all = []string{"mem", "amqp", "nats", "redis"}

// patience is how long a call may take beyond its ctx on a loaded machine.
const patience = 3 * time.Second

// TestBadURL: what is wrong with a URL is an error of Open that says so.
func TestBadURL(t *testing.T) {
	for _, c := range []struct {
		url  string
		is   error
		says string
	}{
		{"kafka://localhost", errors.ErrUnsupported, `"kafka"`},
		{"localhost:5672", polymq.ErrInvalid, "scheme"},
		{"", polymq.ErrInvalid, "scheme"},
		{"://localhost", polymq.ErrInvalid, "scheme"},
		{"redis://localhost:99999", polymq.ErrInvalid, "port"},
		{"nats://local host", polymq.ErrInvalid, "host"},
		{"amqp://user:secret@localhost:port/", polymq.ErrInvalid, "port"},
		{"amqp://user:sec%ret@localhost/", polymq.ErrInvalid, "percent"},
		{"redis://:secret@localhost/?lease=1s&lease=2s", polymq.ErrInvalid, "lease"},
		{"amqp://localhost/#fragment", polymq.ErrInvalid, "%23"},
		{"redis://localhost/notanumber", nil, "number"},
		{"nats://localhost/path", nil, "path"},
	} {
		t.Run(c.url, func(t *testing.T) {
			conn, err := polymq.Open(within(t, 10*time.Second), c.url, nil)
			if err == nil {
				conn.Close(t.Context())
				t.Fatal("Open took it")
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v is not %v", err, c.is)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error does not speak of %s: %v", c.says, err)
			}
			if strings.Contains(err.Error(), "sec") {
				t.Errorf("the password is in the error: %v", err)
			}
			e, ok := errors.AsType[*polymq.Error](err)
			if !ok || e.Op != "open" {
				t.Errorf("not an *Error of open: %v", err)
			}
		})
	}
}

func TestUnknownOption(t *testing.T) {
	for _, scheme := range all {
		t.Run(scheme, func(t *testing.T) {
			raw := testbroker.URL(t, scheme)
			separator := "?"
			if strings.Contains(raw, "?") {
				separator = "&"
			}
			_, err := polymq.Open(within(t, 30*time.Second), raw+separator+"nonsense=1", nil)
			wantError(t, raw, err, nil, `"nonsense"`)
		})
	}
}

func TestWrongPassword(t *testing.T) {
	for _, scheme := range all[1:] {
		t.Run(scheme, func(t *testing.T) {
			u, err := url.Parse(testbroker.URL(t, scheme))
			if err != nil {
				t.Fatal(err)
			}
			u.User = url.UserPassword(u.User.Username(), "notthepassword")
			_, err = polymq.Open(within(t, 30*time.Second), u.String(), nil)
			wantError(t, u.String(), err, polymq.ErrPermission, "")
		})
	}
}

func TestRefusedConnection(t *testing.T) {
	for _, scheme := range all[1:] {
		t.Run(scheme, func(t *testing.T) {
			link := testbroker.Proxy(t, testbroker.URL(t, scheme))
			link.Refuse(true)
			_, err := polymq.Open(within(t, 30*time.Second), link.URL(), nil)
			u, _ := url.Parse(link.URL())
			wantError(t, link.URL(), err, syscall.ECONNREFUSED, u.Host)
		})
	}
}

// A broker that takes connections and says nothing.
func TestSilentBroker(t *testing.T) {
	for _, scheme := range all[1:] {
		t.Run(scheme, func(t *testing.T) {
			link := testbroker.Proxy(t, testbroker.URL(t, scheme))
			quick := func(what string, is error, call func(ctx context.Context) error) {
				t.Helper()
				err := inTime(t, what, 300*time.Millisecond, call)
				if !errors.Is(err, is) {
					t.Errorf("%s: %v, want %v", what, err, is)
				}
				wantError(t, link.URL(), err, is, "")
			}
			conn := open(t, link.URL())
			declare(t, conn, routing.Topology{Queues: []routing.Queue{{Name: "q"}}})
			pub, sub := publisher(t, conn, ""), subscriber(t, conn, "q", 1)

			link.Stall(true)
			quick("Open", context.DeadlineExceeded, func(ctx context.Context) error {
				_, err := polymq.Open(ctx, link.URL(), nil)
				return err
			})
			quick("Publish", polymq.ErrUnconfirmed, func(ctx context.Context) error {
				return pub.Publish(ctx, &polymq.Message{ID: "1", Key: "q"})
			})
			quick("Declare", context.DeadlineExceeded, func(ctx context.Context) error {
				return conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "q2"}}})
			})
			quick("Receive", context.DeadlineExceeded, func(ctx context.Context) error {
				_, err := sub.Receive(ctx)
				return err
			})
			quick("Health", context.DeadlineExceeded, conn.Health)
			quick("Bind", context.DeadlineExceeded, func(ctx context.Context) error {
				return conn.Bind(ctx, routing.Binding{Exchange: "amq.topic", Queue: "q", Key: "k"})
			})
			link.Stall(false)

			// And it all works again. The unconfirmed message may be there.
			ctx := within(t, 30*time.Second)
			if err := pub.Publish(ctx, &polymq.Message{ID: "2", Key: "q"}); err != nil {
				t.Fatalf("after the silence: %v", err)
			}
			for {
				d, err := sub.Receive(ctx)
				if err != nil {
					t.Fatalf("after the silence: %v", err)
				}
				if err := d.Ack(ctx); err != nil && !errors.Is(err, polymq.ErrLost) {
					t.Fatal(err)
				}
				if d.ID == "2" {
					return
				}
			}
		})
	}
}

// What cannot be declared or carried is refused by the call it is given to, and
// leaves nothing; what comes after it is not harmed.
func TestIllegal(t *testing.T) {
	for _, scheme := range all {
		t.Run(scheme, func(t *testing.T) {
			raw := testbroker.URL(t, scheme)
			conn := open(t, raw)
			ctx := within(t, 2*time.Minute)
			for _, name := range []string{"", strings.Repeat("n", 256), "a\nb", "a\x00b", "\xff\xfe", "amq.mine"} {
				t.Run(fmt.Sprintf("name %.10q", name), func(t *testing.T) {
					wantError(t, raw, conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: name}}}), polymq.ErrInvalid, "")
					wantError(t, raw, conn.Declare(ctx, routing.Topology{Exchanges: []routing.Exchange{{Name: name, Kind: routing.Topic}}}), polymq.ErrInvalid, "")
				})
			}
			wantError(t, raw, conn.Declare(ctx, routing.Topology{Exchanges: []routing.Exchange{{Name: "x", Kind: "quantum"}}}), nil, "quantum")
			wantError(t, raw, conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "q", Args: map[string]any{"x-nonsense": 1}}}}), nil, "x-nonsense")

			declare(t, conn, routing.Topology{Queues: []routing.Queue{{Name: "q"}}})
			pub := publisher(t, conn, "")
			for name, m := range map[string]*polymq.Message{
				"a struct":        {Header: polymq.Header{"h": struct{}{}}},
				"a uint64":        {Header: polymq.Header{"h": uint64(1)}},
				"a channel":       {Header: polymq.Header{"h": make(chan int)}},
				"deep inside":     {Header: polymq.Header{"h": []any{map[string]any{"x": func() {}}}}},
				"CC of numbers":   {Header: polymq.Header{"CC": []any{int64(1)}}},
				"BCC as a string": {Header: polymq.Header{"BCC": "q"}},
			} {
				m.Key = "q"
				t.Run(name, func(t *testing.T) {
					wantError(t, raw, pub.Publish(ctx, m), polymq.ErrInvalid, "")
				})
			}
			wantError(t, raw, pub.Publish(ctx, &polymq.Message{Key: "q" + strings.Repeat("q", 255)}), polymq.ErrInvalid, "")

			big := &polymq.Message{Key: "q", Body: make([]byte, 20<<20)}
			wantError(t, raw, pub.Publish(ctx, big), polymq.ErrTooLarge, "")

			// One message of a batch does not take the others with it.
			err := pub.Publish(ctx, &polymq.Message{ID: "before", Key: "q"}, big, &polymq.Message{ID: "after", Key: "q"})
			failed, ok := errors.AsType[*polymq.PublishError](err)
			if !ok || len(failed.Failures) != 1 || failed.Failures[0].Index != 1 || !errors.Is(err, polymq.ErrTooLarge) {
				t.Fatalf("a batch with one large message: %v", err)
			}
			sub := subscriber(t, conn, "q", 10)
			for _, want := range []string{"before", "after"} {
				d, err := sub.Receive(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if d.ID != want {
					t.Fatalf("received %q, want %q", d.ID, want)
				}
				if err := d.Ack(ctx); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// What somebody else put among our messages, with the broker's own means, is
// delivered as far as it can be read, or given up; it holds nothing up.
func TestForeignEntry(t *testing.T) {
	foreign := map[string]func(t *testing.T, ctx context.Context, conn *polymq.Conn, namespace string){
		"amqp": func(t *testing.T, ctx context.Context, conn *polymq.Conn, _ string) {
			ch, err := conn.Native().(*amqp091.Connection).Channel()
			if err != nil {
				t.Fatal(err)
			}
			defer ch.Close()
			deep := any("core")
			for range 40 { // more than AMQP clients of Go read
				deep = []any{deep}
			}
			err = ch.PublishWithContext(ctx, "", "q", true, false, amqp091.Publishing{Headers: amqp091.Table{"deep": deep}, Body: []byte("foreign")})
			if err != nil {
				t.Fatal(err)
			}
		},
		"nats": func(t *testing.T, ctx context.Context, conn *polymq.Conn, namespace string) {
			nc := conn.Native().(*natsgo.Conn)
			js, err := nc.JetStream()
			if err != nil {
				t.Fatal(err)
			}
			found := 0
			for name := range js.StreamNames(natsgo.Context(ctx)) {
				if !strings.Contains(name, namespace) || strings.HasSuffix(name, "_topology") {
					continue
				}
				found++
				info, err := js.StreamInfo(name)
				if err != nil {
					t.Fatal(err)
				}
				for _, subject := range info.Config.Subjects {
					subject = strings.NewReplacer("*", "m", ">", "m").Replace(subject)
					m := natsgo.NewMsg(subject)
					m.Data = []byte("foreign")
					m.Header.Set("time", "not a time")
					m.Header.Set("Polymq-Time", "not a time")
					if _, err := js.PublishMsg(m, natsgo.Context(ctx)); err != nil {
						t.Fatalf("publish to %s: %v", subject, err)
					}
				}
			}
			if found != 1 {
				t.Fatalf("%d streams hold the queue", found)
			}
		},
		"redis": func(t *testing.T, ctx context.Context, conn *polymq.Conn, namespace string) {
			client := conn.Native().(goredis.UniversalClient)
			keys, err := client.Keys(ctx, "*"+namespace+"*").Result()
			if err != nil {
				t.Fatal(err)
			}
			found := 0
			for _, key := range keys {
				if !strings.HasSuffix(key, "}") {
					continue // beside the queue's stream
				}
				found++
				if err := client.XAdd(ctx, &goredis.XAddArgs{Stream: key, Values: []any{"time", "not a time", "surprise", "\xff\x00"}}).Err(); err != nil {
					t.Fatal(err)
				}
			}
			if found != 1 {
				t.Fatalf("%d streams hold the queue, of the keys %v", found, keys)
			}
		},
	}
	for _, scheme := range all[1:] {
		t.Run(scheme, func(t *testing.T) {
			raw := testbroker.URL(t, scheme)
			u, err := url.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			conn := open(t, raw)
			ctx := within(t, time.Minute)
			declare(t, conn, routing.Topology{Queues: []routing.Queue{{Name: "q"}}})
			sub := subscriber(t, conn, "q", 10)
			pub := publisher(t, conn, "")
			publish := func(id string) {
				t.Helper()
				if err := pub.Publish(ctx, &polymq.Message{ID: id, Key: "q", Body: []byte("ours")}); err != nil {
					t.Fatal(err)
				}
			}
			publish("before")
			foreign[scheme](t, ctx, conn, u.Query().Get("vhost"))
			publish("after")
			ours := map[string]bool{} // one may come twice where the entry ended the connection
			for len(ours) < 2 {
				d, err := sub.Receive(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := d.Ack(ctx); errors.Is(err, polymq.ErrLost) {
					continue // the entry has ended a connection, once; it comes again
				} else if err != nil {
					t.Fatal(err)
				}
				if d.ID == "before" || d.ID == "after" {
					if ours[d.ID] = true; string(d.Body) != "ours" {
						t.Errorf("%s has the body %q", d.ID, d.Body)
					}
				} else {
					t.Logf("the foreign entry is delivered as %+v", *d.Message)
				}
			}
			if err := sub.Close(ctx); err != nil {
				t.Fatal(err)
			}
			if n, err := conn.Purge(ctx, "q"); err != nil || n != 0 {
				t.Fatalf("left in the queue: %d, %v", n, err)
			}
		})
	}
}

// wantError checks that err is, where is is not nil, that it says something,
// and that it does not hold the password of rawURL.
func wantError(t *testing.T, rawURL string, err, is error, says string) {
	t.Helper()
	if err == nil {
		t.Error("no error")
		return
	}
	if is != nil && !errors.Is(err, is) {
		t.Errorf("%v is not %v", err, is)
	}
	if !strings.Contains(err.Error(), says) {
		t.Errorf("the error does not speak of %s: %v", says, err)
	}
	if strings.Contains(err.Error(), "\n") && is != nil {
		t.Errorf("the error is longer than a line: %v", err)
	}
	u, parseErr := url.Parse(rawURL)
	if parseErr != nil {
		t.Fatal(parseErr)
	}
	if password, ok := u.User.Password(); ok && strings.Contains(err.Error(), password) {
		t.Errorf("the password is in the error: %v", err)
	}
}
