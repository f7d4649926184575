package nats

import (
	"errors"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestSilentAnswers: an answer that does not come is given up for another try.
// It is not taken for an answer to another message when it comes after all, and
// the two tries leave one message.
func TestSilentAnswers(t *testing.T) {
	url := testbroker.URL(t, "nats")
	direct := open(t, url)
	declare(t, direct, routing.Queue{Name: "q"})
	link := testbroker.Proxy(t, url)
	s := openRaw(t, link.URL())
	p := publisherOf(t, emulated(t, s))
	mustPublish(t, p, "q", "before")
	link.Stall(true)
	o := &outcome{left: 1, done: make(chan struct{})}
	pb := &driver.Publishing{Message: &driver.Message{Key: "q", Body: []byte("m")}, ID: "m", Owner: o}
	p.Publish(within(t), []*driver.Publishing{pb}, false)
	inFlight := func() (n int) {
		s.publisher.mu.Lock()
		defer s.publisher.mu.Unlock()
		for _, sl := range s.publisher.slots {
			if sl.parcel != nil {
				n++
			}
		}
		return n
	}
	if n := inFlight(); n != 1 {
		t.Fatalf("%d in flight", n)
	}
	s.publisher.sweep(time.Now().Add(answerTimeout / 2))
	if n := inFlight(); n != 1 {
		t.Fatalf("%d in flight after half the time", n)
	}
	s.publisher.sweep(time.Now().Add(answerTimeout + time.Second))
	// The next try is on its way too when the answers come.
	for deadline := time.Now().Add(10 * time.Second); inFlight() == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	link.Stall(false)
	select {
	case <-o.done:
	case <-within(t).Done():
		t.Fatal("no outcome")
	}
	if err := pb.Err(); err != nil {
		t.Fatal(err)
	}
	mustPublish(t, p, "q", numbered("n", 0, 5)...)
	if info, err := direct.Inspect(within(t), "q"); err != nil || info.Ready != 1+1+5 {
		t.Fatalf("%+v, %v; want 7 messages", info, err)
	}
}

// TestStorageGone removes a queue's stream as an operator may: who publishes to
// it, and who consumes, hears of it.
func TestStorageGone(t *testing.T) {
	s := openRaw(t, testbroker.URL(t, "nats"))
	c := emulated(t, s)
	declare(t, c, routing.Queue{Name: "q"})
	p := publisherOf(t, c)
	mustPublish(t, p, "q", "m")
	sub := subscribe(t, c, "q", 1)
	settle(t, sub, receive(t, sub, 1)[0], driver.Ack, 0)
	if err := s.js.DeleteStream(within(t), queueOf(t, s, "q").stream); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.Receive(within(t), make([]*driver.Delivery, 1)); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("Receive: %v", err)
	}
	if err := publish(t, p, "q", "n")[0]; !errors.Is(err, driver.ErrUnroutable) {
		t.Errorf("Publish: %v", err)
	}
	if _, err := c.Inspect(within(t), "q"); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("Inspect: %v", err)
	}
	declare(t, c, routing.Queue{Name: "q"})
	mustPublish(t, p, "q", "again")
}
