package guides

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/drivers/mem"
	"github.com/polymq/polymq/polymqtest"
	"github.com/polymq/polymq/routing"
)

// mailer runs the handler of the queue "mail" until stop is called.
func mailer(conn *polymq.Conn, send func() error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		sub, err := conn.Subscriber(ctx, "mail", nil)
		if err != nil {
			return
		}
		_ = sub.Run(ctx, func(context.Context, *polymq.Delivery) error { return send() })
	}()
	return func() {
		cancel()
		<-done
	}
}

func TestMailIsTriedAgain(t *testing.T) {
	polymqtest.Run(t, func(t *testing.T, b *polymqtest.Broker) {
		conn := b.Open(nil)
		b.Declare(conn, routing.Topology{Queues: []routing.Queue{{Name: "mail"}}})
		tries := 0
		stop := mailer(conn, func() error { // the program under test
			if tries++; tries < 3 {
				return errors.New("the mail server is down")
			}
			return nil
		})
		defer stop()
		pub, err := conn.Publisher(t.Context(), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := pub.Publish(t.Context(), &polymq.Message{Key: "mail", Delay: time.Second}); err != nil {
			t.Fatal(err)
		}
		b.Settled(conn) // returns when the mail is out, two backoffs later
		if tries != 3 {
			t.Errorf("%d tries", tries)
		}
	})
}

// The acknowledgement of the first delivery is lost: the message comes again.
func TestMailGoesOutTwiceAtWorst(t *testing.T) {
	t.Setenv(polymqtest.Env, "") // faults are injected in memory
	polymqtest.Run(t, func(t *testing.T, b *polymqtest.Broker) {
		conn := b.Open(nil)
		b.Declare(conn, routing.Topology{Queues: []routing.Queue{{Name: "mail"}}})
		b.Inject(func(s polymqtest.Step) polymqtest.Fault {
			return polymqtest.Fault{Drop: s.Op == polymqtest.Settle && s.N == 1}
		})
		tries := 0
		defer mailer(conn, func() error { tries++; return nil })()
		pub, err := conn.Publisher(t.Context(), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := pub.Publish(t.Context(), &polymq.Message{Key: "mail"}); err != nil {
			t.Fatal(err)
		}
		b.Settled(conn)
		if tries != 2 {
			t.Errorf("%d tries", tries)
		}
	})
}

// The same test on each broker, as POLYMQ_TEST_URL names it.
func TestMailOnEachBroker(t *testing.T) {
	for _, scheme := range []string{"amqp", "nats", "redis"} {
		fresh(t, func(t *testing.T, _ context.Context, url string) {
			t.Setenv(polymqtest.Env, url)
			TestMailIsTriedAgain(t)
		}, scheme)
	}
}

// broker is a connection to an empty broker in memory.
func broker(t *testing.T) *polymq.Conn {
	conn, err := polymq.Open(t.Context(), "mem://"+t.Name(), nil)
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
