package amqp

import (
	"errors"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

func declare(t testing.TB, c *Conn, qs ...routing.Queue) {
	t.Helper()
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: qs}))
}

// TestClosedPublisherForgotten closes publishers whose messages wait for the
// connection or for their confirmation. Their owner may use the publishings
// for something else at once: a pooled one must not be sent.
func TestClosedPublisherForgotten(t *testing.T) {
	link := testbroker.Proxy(t, testbroker.URL(t, "amqp"))
	c := openURL(t, link.URL())
	declare(t, c, routing.Queue{Name: "q"})
	desert := func(key string) {
		t.Helper()
		p := publisherOf(t, c, "")
		x := publishing(driver.Message{Key: key})
		p.Publish(ctxOf(t), []*driver.Publishing{x}, false)
		check(t, p.Close(ctxOf(t)))
		if err := wait(t, x); !errors.Is(err, driver.ErrUnconfirmed) {
			t.Errorf("a publish whose publisher was closed: %v", err)
		}
		x.Reset(nil, "")
	}
	link.Stall(true)
	desert("q")
	desert("nowhere")
	link.Stall(false)
	check(t, publish(t, publisherOf(t, c, ""), driver.Message{Key: "q"}))

	link.Stall(true)
	desert("q")
	link.Refuse(true)
	link.Cut()
	until(t, "the connection is lost", func() bool { return c.publish.state() == driver.Disconnected })
	for range 3 {
		desert("q")
	}
	link.Stall(false)
	link.Refuse(false)
	check(t, publish(t, publisherOf(t, c, ""), driver.Message{Key: "q"}))
}

// TestInnocentUnblamed has a message in flight that closes the channel and that
// its caller has given up on: the one behind it must not get its error.
func TestInnocentUnblamed(t *testing.T) {
	c := open(t)
	declare(t, c, routing.Queue{Name: "q"})
	p := publisherOf(t, c, "")
	for range 5 {
		bad := publishing(driver.Message{Key: "q", UserID: "somebody-else"})
		good := publishing(driver.Message{Key: "q"})
		p.Publish(ctxOf(t), []*driver.Publishing{bad, good}, false)
		bad.Resolve(driver.ErrUnconfirmed)
		check(t, wait(t, good))
	}
}

// TestGivenUpIsNotRead changes a message whose publish was given up while it
// was in flight; the race detector watches.
func TestGivenUpIsNotRead(t *testing.T) {
	link := testbroker.Proxy(t, testbroker.URL(t, "amqp"))
	c := openURL(t, link.URL())
	p := publisherOf(t, c, "")
	check(t, c.Health(ctxOf(t)))
	link.Stall(true)
	x := publishing(driver.Message{Key: "nowhere"})
	p.Publish(ctxOf(t), []*driver.Publishing{x}, false)
	x.Resolve(driver.ErrUnconfirmed)
	link.Stall(false)
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
		x.Message.Key += "!"
	}
}

// TestRetriedIsUnknown: what is refused on a second try may have been stored by
// the first.
func TestRetriedIsUnknown(t *testing.T) {
	c := open(t)
	c.management = nil
	from := &publisher{out: c.out, exchange: "x"}
	c.refusals.declared("q", true)
	outcome := func(it *item, acked bool) error {
		it.p = publishing(driver.Message{})
		known, err := c.out.outcome(it, &session{}, acked)
		if !known {
			t.Error("the outcome is not known")
		}
		return err
	}
	for _, acked := range []bool{false, true} {
		want := driver.ErrRejected
		if acked {
			want = driver.ErrUnroutable
		}
		it := item{from: from, returned: true}
		if err := outcome(&it, acked); !errors.Is(err, want) || errors.Is(err, driver.ErrUnconfirmed) {
			t.Errorf("refused on the first try: %v", err)
		}
		it.tried = true
		if err := outcome(&it, acked); errors.Is(err, want) || !errors.Is(err, driver.ErrUnconfirmed) {
			t.Errorf("refused on a second try: %v", err)
		}
	}
	other := &publisher{out: c.out, exchange: "y"}
	items := []item{{from: from, id: "1"}, {from: other, id: "2"}, {from: from, id: "3"}, {from: other, id: "4"}}
	refusal := &amqp091.Error{Code: amqp091.AccessRefused, Server: true, Reason: "ACCESS_REFUSED - access to exchange 'x' in vhost '/' refused for user 'u'"}
	rest, guilty, careful := attribute(refusal, items)
	if careful || len(rest) != 2 || len(guilty) != 2 || !guilty[0].tried || guilty[1].tried {
		t.Errorf("attributed: rest %v, guilty %v, careful %v", rest, guilty, careful)
	}
}

// TestStuckAloneHoldsUpNobody: a message that goes alone and gets no
// confirmation, of a publisher that is closed, is not waited for for ever.
func TestStuckAloneHoldsUpNobody(t *testing.T) {
	t.Parallel()
	link := testbroker.Proxy(t, testbroker.URL(t, "amqp"))
	c := openURL(t, link.URL())
	declare(t, c, routing.Queue{Name: "q"})
	p, other := publisherOf(t, c, ""), publisherOf(t, c, "")
	check(t, publish(t, p, driver.Message{Key: "q"}))
	link.Stall(true)
	flying := func() int {
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		return len(c.out.flight)
	}
	c.out.mu.Lock()
	c.out.careful = 1
	c.out.mu.Unlock()
	p.Publish(ctxOf(t), []*driver.Publishing{publishing(driver.Message{Key: "q"})}, false)
	until(t, "the first is sent", func() bool { return flying() == 1 })
	check(t, p.Close(ctxOf(t)))
	y := publishing(driver.Message{Key: "q"})
	other.Publish(ctxOf(t), []*driver.Publishing{y}, false)
	until(t, "the second is sent though the first is unconfirmed", func() bool { return flying() == 2 })
	link.Stall(false)
	check(t, wait(t, y))
	if got := lateLast([]item{{id: "1", late: true}, {id: "2"}, {id: "3", late: true}, {id: "4"}}); got[0].id+got[1].id+got[2].id+got[3].id != "2413" {
		t.Errorf("sent again in the order %v", got)
	}
}
