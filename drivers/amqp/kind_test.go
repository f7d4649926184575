package amqp

import (
	"errors"
	"strings"
	"testing"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestKindOfLongNames: RabbitMQ cuts its texts at 255 bytes. What they do not tell of a
// queue, its declaration does, and who has not declared it knows that they do not.
func TestKindOfLongNames(t *testing.T) {
	url := testbroker.URL(t, "amqp")
	c, other := openURL(t, url), openURL(t, url)
	c.management, other.management = nil, nil
	for _, n := range []int{100, 240} {
		for first, tc := range map[string]struct {
			q    routing.Queue
			want queueKind
		}{
			"limited": {routing.Queue{MaxAttempts: 2}, queueKind{kind: typeQuorum, limit: 2}},
			"refuses": {routing.Queue{MaxLength: 1, Overflow: routing.RejectPublish}, queueKind{kind: typeQuorum, refuses: true}},
			"classic": {routing.Queue{Type: typeClassic, MaxLength: 10}, queueKind{kind: typeClassic}},
		} {
			tc.q.Name = first + strings.Repeat("x", n-len(first))
			declare(t, c, tc.q)
			if k, err := c.kindOf(ctxOf(t), tc.q.Name); k != tc.want || err != nil {
				t.Errorf("%s of %d bytes: %+v, %v, want %+v", first, n, k, err, tc.want)
			}
			if k, err := other.kindOf(ctxOf(t), tc.q.Name); !(k == tc.want && err == nil) && !errors.Is(err, errUntold) {
				t.Errorf("%s of %d bytes, for another: %+v, %v", first, n, k, err)
			}
		}
	}
}

// TestLongNameRefuses: a queue that another Conn has declared is full, and its name keeps
// this one from learning that it refuses.
func TestLongNameRefuses(t *testing.T) {
	url := testbroker.URL(t, "amqp")
	c, other := openURL(t, url), openURL(t, url)
	other.management = nil
	name := strings.Repeat("x", 150)
	declare(t, c, routing.Queue{Name: name, MaxLength: 1, Overflow: routing.RejectPublish})
	p := publisherOf(t, other, "")
	check(t, publish(t, p, driver.Message{Key: name}))
	session := sessionOf(other.out)
	other.out.mu.Lock()
	session.connected = session.connected.Add(-settling) // else it is likely that the queue has no leader
	other.out.mu.Unlock()
	var err error
	for range 10 {
		if err = publish(t, p, driver.Message{Key: name}); err != nil {
			break
		}
	}
	if !errors.Is(err, driver.ErrRejected) {
		t.Errorf("got %v, want ErrRejected", err)
	}
}

// TestLongNameInUse: the text that says so is cut as well.
func TestLongNameInUse(t *testing.T) {
	url := testbroker.URL(t, "amqp")
	c, other := openURL(t, url), openURL(t, url)
	with := other.management
	for name, q := range map[string]routing.Queue{"quorum": {}, "classic": {Type: typeClassic}} {
		q.Name = name + strings.Repeat("x", 220)
		declare(t, c, q)
		subscribe(t, c, q.Name, 1)
		for _, m := range []*management{with, nil} {
			other.management = m
			if err := other.DeleteQueue(ctxOf(t), q.Name, driver.DeleteOptions{IfUnused: true}); !errors.Is(err, driver.ErrInUse) {
				t.Errorf("%s, management: %v: %v", name, m != nil, err)
			}
		}
	}
}
