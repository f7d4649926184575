package guides

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/middleware"
	"github.com/polymq/polymq/routing"
)

// careful handles each bill once, however often it comes, up to 100 a second; what
// can never be handled is a dead letter with its reason, and the stack of a panic.
func careful(ctx context.Context, conn *polymq.Conn, dead *polymq.Publisher, log *slog.Logger) (*polymq.Subscriber, error) {
	return conn.Subscriber(ctx, "bills", &polymq.SubscriberOptions{
		Middleware: []polymq.Middleware{
			middleware.Log(log, slog.LevelInfo), // sees what came of it all
			middleware.Correlate(),
			middleware.DeadLetter(dead.Publish, &middleware.DeadLetterOptions{Key: "bills.dead", MaxAttempts: 5}),
			middleware.Recover(), // a panic of what follows is an error to what stands before
			middleware.Deduplicate(middleware.NewMemoryDedup(0), nil),
			middleware.Throttle(rate.NewLimiter(100, 10)),
			byTenant,
			middleware.Retry(3, polymq.Exponential(10*time.Millisecond, time.Second)),
			middleware.Timeout(5 * time.Second), // of each try
			middleware.Decompress(nil),
		},
	})
}

func sending(ctx context.Context, conn *polymq.Conn) (*polymq.Publisher, error) {
	return conn.Publisher(ctx, "", &polymq.PublisherOptions{
		Middleware: []polymq.PublishMiddleware{
			middleware.CorrelatePublish(), // what a handler publishes belongs to what it handles
			middleware.Compress(middleware.Gzip, nil),
			middleware.ThrottlePublish(rate.NewLimiter(1000, 100)),
		},
	})
}

type tenantKey struct{}

// byTenant puts the tenant of a message into its handler's ctx.
func byTenant(next polymq.Handler) polymq.Handler {
	return func(ctx context.Context, d *polymq.Delivery) error {
		tenant := d.Header.Get("tenant")
		if tenant == "" {
			return polymq.Permanent(errors.New("the message names no tenant"))
		}
		return next(context.WithValue(ctx, tenantKey{}, tenant), d)
	}
}

func TestMiddleware(t *testing.T) {
	everywhere(t, func(t *testing.T, ctx context.Context, conn *polymq.Conn) {
		err := conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "bills"}, {Name: "bills.dead"}}})
		if err != nil {
			t.Fatal(err)
		}
		dead, err := conn.Publisher(ctx, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		var lines bytes.Buffer
		sub, err := careful(ctx, conn, dead, slog.New(slog.NewTextHandler(&lines, nil)))
		if err != nil {
			t.Fatal(err)
		}
		pub, err := sending(ctx, conn)
		if err != nil {
			t.Fatal(err)
		}
		long := []byte(strings.Repeat("broom ", 1000))
		of := polymq.Header{"tenant": "north"}
		err = pub.Publish(middleware.WithCorrelationID(ctx, "order 7"),
			&polymq.Message{ID: "1", Key: "bills", Header: of, Body: long},
			&polymq.Message{ID: "2", Key: "bills"},
			&polymq.Message{ID: "3", Key: "bills", Header: of, Body: []byte("last")})
		if err != nil {
			t.Fatal(err)
		}
		running, stop := context.WithCancel(ctx)
		defer stop()
		err = sub.Run(running, func(ctx context.Context, d *polymq.Delivery) error {
			if ctx.Value(tenantKey{}) != "north" || middleware.CorrelationID(ctx) != "order 7" {
				t.Errorf("bill %s: tenant %v, correlation %q", d.ID, ctx.Value(tenantKey{}), middleware.CorrelationID(ctx))
			}
			if d.ID == "3" {
				stop()
			} else if !bytes.Equal(d.Body, long) {
				t.Errorf("bill %s has %d bytes", d.ID, len(d.Body))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		sub, err = conn.Subscriber(ctx, "bills.dead", nil)
		if err != nil {
			t.Fatal(err)
		}
		d, err := sub.Receive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if d.Header.Get(middleware.HeaderFirstID) != "2" || d.Header.Get(polymq.HeaderError) != "the message names no tenant" {
			t.Errorf("the dead letter is %s: %v", d.ID, d.Header)
		}
		if text := lines.String(); strings.Count(text, "outcome=") != 3 {
			t.Errorf("logged:\n%s", text)
		}
	})
}
