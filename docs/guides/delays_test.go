package guides

import (
	"context"
	"slices"
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
		due := time.Now().Add(200 * time.Millisecond)
		if err := remind(ctx, pub, "tea", due); err != nil {
			t.Fatal(err)
		}
		publish(t, conn, "", &polymq.Message{Key: "reminders", Body: []byte("now")})
		// Their order says nothing: on a busy machine the tea may be due before the
		// other is published.
		got := take(t, ctx, conn, "reminders", 2)
		if early := time.Until(due); early > 0 {
			t.Errorf("got %q %v before the tea was due", got, early)
		}
		if slices.Sort(got); !slices.Equal(got, []string{"now", "tea"}) {
			t.Errorf("got %q", got)
		}
	})
}
