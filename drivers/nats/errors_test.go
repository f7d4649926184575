package nats

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

func TestPublished(t *testing.T) {
	for answer, want := range map[string]error{
		`{"error":{"code":409,"err_code":10158,"description":"duplicate message id is in process"}}`: driver.ErrUnconfirmed,
		`{"error":{"code":400,"err_code":10097,"description":"header size exceeds maximum"}}`:        driver.ErrTooLarge,
		`{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum"}}`:       driver.ErrTooLarge,
		`{"error":{"code":429,"err_code":10167,"description":"too many requests"}}`:                  driver.ErrUnconfirmed,
		`{"error":{"code":503,"err_code":10077,"description":"store is closed"}}`:                    driver.ErrUnconfirmed,
		`{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}`:          driver.ErrRejected,
		`{"error":{"code":503,"err_code":10023,"description":"insufficient resources"}}`:             driver.ErrUnconfirmed,
		`{"error":{"code":500,"err_code":10077,"description":"write: no space left on device"}}`:     driver.ErrUnconfirmed,
		`{"error":{"code":400,"err_code":10109,"description":"sealed"}}`:                             driver.ErrRejected,
		`what is this`: driver.ErrUnconfirmed,
	} {
		_, err := parseAck([]byte(answer))
		if err = published(err); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", answer, err, want)
		}
	}
}

// TestLargeProperties publishes headers below, at and above what the server
// keeps: what the client lets pass the server must take.
func TestLargeProperties(t *testing.T) {
	c := open(t, testbroker.URL(t, "nats"))
	declare(t, c, routing.Queue{Name: "q"})
	p := publisherOf(t, c)
	try := func(n int) error {
		o := &outcome{left: 1, done: make(chan struct{})}
		pb := &driver.Publishing{ID: fmt.Sprintf("%02d", n%100), Owner: o, Message: &driver.Message{Key: "q", Header: map[string]any{"x": strings.Repeat("x", n)}}}
		p.Publish(within(t), []*driver.Publishing{pb}, true)
		<-o.done
		return pb.Err()
	}
	w := writers.Get().(*writer)
	defer w.release()
	w.write(&emulate.Parcel{DedupID: "id", Publishing: &driver.Publishing{ID: "id", Message: &driver.Message{Key: "q", Header: map[string]any{"x": ""}}}})
	room := maxHeader - w.size
	for n, want := range map[int]error{1000: nil, room: nil, room + 1: driver.ErrTooLarge, 10 * room: driver.ErrTooLarge} {
		if err := try(n); !errors.Is(err, want) {
			t.Errorf("%d bytes of %d: %v, want %v", n, room, err, want)
		}
	}
}
