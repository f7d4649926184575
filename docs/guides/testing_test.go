package guides

import (
	"cmp"
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/drivers/mem"
	"github.com/polymq/polymq/routing"
)

// broker is a connection to an empty broker: in memory, or the one that
// TEST_BROKER_URL names.
func broker(t *testing.T) *polymq.Conn {
	url := cmp.Or(os.Getenv("TEST_BROKER_URL"), "mem://"+t.Name())
	conn, err := polymq.Open(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close(context.Background()) // t.Context has ended by now
		mem.Remove(t.Name())                 // forgets its messages
	})
	return conn
}

// Bills is what is to be tested. It asks for no more of polymq than it needs.
type Bills struct {
	Publish func(ctx context.Context, msgs ...*polymq.Message) error
}

func (b *Bills) Send(ctx context.Context, order string) error {
	return b.Publish(ctx, &polymq.Message{Key: "billing", Body: []byte(order)})
}

// With the broker: what was sent is where it belongs.
func TestBillsArrive(t *testing.T) {
	conn := broker(t)
	err := conn.Declare(t.Context(), routing.Topology{Queues: []routing.Queue{{Name: "billing"}}})
	if err != nil {
		t.Fatal(err)
	}
	pub, err := conn.Publisher(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Bills{pub.Publish}).Send(t.Context(), "17"); err != nil {
		t.Fatal(err)
	}
	sub, err := conn.Subscriber(t.Context(), "billing", nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := sub.Receive(t.Context())
	if err != nil || string(d.Body) != "17" {
		t.Fatalf("got %v, error %v", d, err)
	}
	if err := d.Ack(t.Context()); err != nil {
		t.Error(err)
	}
}

// Without one: a function in place of the publisher.
func TestBillsFail(t *testing.T) {
	refused := &polymq.PublishError{Failures: []polymq.Failure{{Err: polymq.ErrRejected}}}
	b := &Bills{func(context.Context, ...*polymq.Message) error { return refused }}
	if err := b.Send(t.Context(), "17"); err == nil {
		t.Error("the refusal was not heard")
	}
}

// A handler is a function, and a Delivery is plain data.
func TestHandler(t *testing.T) {
	handle := polymq.Typed(func(_ context.Context, d *polymq.Delivery, order struct{ Total int }) error {
		if order.Total != 17 {
			t.Errorf("got %d", order.Total)
		}
		return nil
	})
	err := handle(t.Context(), &polymq.Delivery{Message: &polymq.Message{Body: []byte(`{"Total": 17}`)}})
	if err != nil {
		t.Error(err)
	}
}

func TestReminderInAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := broker(t)
		err := conn.Declare(t.Context(), routing.Topology{Queues: []routing.Queue{{Name: "reminders"}}})
		if err != nil {
			t.Fatal(err)
		}
		pub, err := conn.Publisher(t.Context(), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := pub.Publish(t.Context(), &polymq.Message{Key: "reminders", Delay: time.Hour}); err != nil {
			t.Fatal(err)
		}
		sub, err := conn.Subscriber(t.Context(), "reminders", nil)
		if err != nil {
			t.Fatal(err)
		}
		d, err := sub.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited < time.Hour {
			t.Errorf("it came after %v", waited)
		}
		if err := d.Ack(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
