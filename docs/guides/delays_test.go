package guides

import (
	"context"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

func remind(ctx context.Context, pub *polymq.Publisher, text string, when time.Time) error {
	return pub.Publish(ctx, &polymq.Message{
		Key:  "reminders",
		At:   when, // or Delay: time.Hour
		Body: []byte(text),
	})
}

func TestDelays(t *testing.T) {
	everywhere(t, func(t *testing.T, ctx context.Context, conn *polymq.Conn) {
		if err := conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "reminders"}}}); err != nil {
			t.Fatal(err)
		}
		pub, err := conn.Publisher(ctx, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := remind(ctx, pub, "tea", time.Now().Add(200*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		publish(t, conn, "", &polymq.Message{Key: "reminders", Body: []byte("now")})
		if got := take(t, ctx, conn, "reminders", 2); got[0] != "now" || got[1] != "tea" {
			t.Errorf("got %q", got)
		}
	})
}
