package amqp

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
)

// TestShut: after a failure one message tries after each pause, which grows until
// one works; what is not allowed shuts the exchange, what is not confirmed only
// the key.
func TestShut(t *testing.T) {
	now := time.Now()
	s := shut{}
	a, b, other := way{exchange: "x", key: "a"}, way{exchange: "x", key: "b"}, way{exchange: "y", key: "a"}
	tries := func(w way, during time.Duration) (n int) {
		for end := now.Add(during); now.Before(end); now = now.Add(10 * time.Millisecond) {
			if !s.closed(w, now) {
				n++
				s.failed(w, driver.ErrUnconfirmed, now)
			}
		}
		return n
	}
	for i := range 100 { // sent together
		if first := s.failed(a, driver.ErrUnconfirmed, now); first != (i == 0) {
			t.Errorf("failure %d: first is %v", i, first)
		}
	}
	if s.closed(b, now) || s.closed(other, now) || !s.closed(a, now) {
		t.Error("shut by its key are others, or not this one")
	}
	if n := tries(a, minShut+time.Second); n != 1 {
		t.Errorf("%d tries after the first pause", n)
	}
	if n := tries(a, time.Hour); n < 55 || n > 70 {
		t.Errorf("%d tries in an hour", n)
	}
	now = now.Add(maxShut)
	if s.closed(a, now) {
		t.Error("nothing tries")
	}
	if s.worked(a); s.closed(a, now) || len(s) > 0 {
		t.Error("shut though it worked")
	}
	refused := fmt.Errorf("%w: access to exchange", driver.ErrPermission)
	if s.failed(a, refused, now); !s.closed(a, now) || !s.closed(b, now) || s.closed(other, now) {
		t.Error("not allowed: not the exchange is shut")
	}
	s.worked(a)
	topic := fmt.Errorf("%w: %w", driver.ErrPermission, errors.New("access to topic 'a' in exchange 'x'"))
	if s.failed(a, topic, now); !s.closed(a, now) || s.closed(b, now) {
		t.Error("not allowed by its key: not the key is shut")
	}
	if s.prune(now.Add(time.Hour)); len(s) > 0 {
		t.Error("never forgotten")
	}
}
