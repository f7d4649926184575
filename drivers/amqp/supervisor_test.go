package amqp

import (
	"errors"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
)

// TestConnectedTooLate: a connection that comes about while Close runs belongs
// to nobody, and Close does not wait for it.
func TestConnectedTooLate(t *testing.T) {
	c := open(t)
	var w *wire
	conn, p, err := c.settings.dial(ctxOf(t), c.settings.addrs[0], "publish", func(made *wire) { w = made })
	check(t, err)
	check(t, c.Close(ctxOf(t)))
	if err := c.publish.start(conn, w, p); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("start after Close: %v", err)
	}
	if !conn.IsClosed() {
		t.Error("the connection is left open")
	}
}

// TestDoomedConnectionsPause: connections that are lost as soon as they are
// made are not made again in a loop.
func TestDoomedConnectionsPause(t *testing.T) {
	c := open(t)
	dials := make(chan time.Time, 1000)
	c.consume.onUp = func(conn *amqp091.Connection, w *wire) { // the link's goroutine has not read it yet
		dials <- time.Now()
		w.cut()
	}
	c.consume.mu.Lock()
	w := c.consume.wire
	c.consume.mu.Unlock()
	w.cut()
	var last time.Time
	for n := range 5 {
		at := <-dials
		if least := minPause << n / 4; n > 1 && at.Sub(last) < least {
			t.Errorf("dial %d comes %v after the one before, want at least %v", n, at.Sub(last), least)
		}
		last = at
	}
}
