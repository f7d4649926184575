package amqp

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestNackedAgain: on a young connection a nack is not the last word.
func TestNackedAgain(t *testing.T) {
	var n nacks
	it := item{from: &publisher{exchange: "x"}, p: publishing(driver.Message{})}
	if n.again(it, false) {
		t.Error("nacked on an old connection, a message is tried again")
	}
	tries := 1
	for at := time.Now(); n.again(it, true); at = time.Now() {
		due, next := n.take(at)
		if len(due) != 0 || time.Until(next) > time.Second {
			t.Fatalf("nacked %d times: %d due at once, the next %v", tries, len(due), time.Until(next))
		}
		if due, next = n.take(next); len(due) != 1 || !next.IsZero() || len(n.later) != 0 {
			t.Fatalf("nacked %d times: %d due in time, the next %v", tries, len(due), next)
		}
		it = due[0]
		tries++
	}
	if tries != maxTries {
		t.Errorf("tried %d times, want %d", tries, maxTries)
	}
	it.nacked = 0
	if n.again(it, true) {
		t.Error("where one was refused to the last try, the next is tried again")
	}
	n.count("x", true)
	if !n.again(it, true) {
		t.Error("where one was taken since, the next is not tried again")
	}
	it.p.Resolve(driver.ErrUnconfirmed)
	if n.again(it, true) {
		t.Error("what its caller gave up on is tried again")
	}
}

// TestNackWaits: what nothing refuses is tried for as long as somebody waits for it,
// about once a second and then ever more rarely, on another channel each time.
func TestNackWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n nacks
		it := item{from: &publisher{exchange: "x"}, p: publishing(driver.Message{})}
		start, tries := time.Now(), 0
		for time.Since(start) < time.Hour {
			n.wait(it)
			_, next := n.take(time.Now())
			if d := time.Until(next); d > longPause || d > steadyPause && time.Since(start) < settling/2 {
				t.Fatalf("after %d nacks in %v the pause is %v", tries, time.Since(start), d)
			}
			time.Sleep(time.Until(next))
			due, _ := n.take(time.Now())
			if len(due) != 1 || !due[0].partly {
				t.Fatalf("after %d nacks: %v is due", tries, due)
			}
			if it = due[0]; !n.hop.due(time.Now()) {
				t.Fatalf("after %d nacks the channel is not changed", tries)
			}
			n.hop.over(time.Now())
			tries++
		}
		if tries > 150 {
			t.Errorf("tried %d times in an hour", tries)
		}
		n.wait(it)
		n.hop.over(time.Now())
		n.hop.want(time.Now())
		if n.hop.due(time.Now()) {
			t.Error("the channel is changed at every nack")
		}
	})
}

// TestHopIsForced: what hangs in flight is waited for once, and a little longer the
// second time; then the channel is changed all the same.
func TestHopIsForced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h hop
		for range 3 { // outages
			time.Sleep(2 * settling)
			h.want(time.Now())
			h.begin(time.Now())
			if h.miss(time.Now()) {
				t.Fatal("given up at once")
			}
			time.Sleep(holdTime + 1)
			if !h.miss(time.Now()) {
				t.Fatal("what is in flight is not waited for again")
			}
			h.want(time.Now())
			h.begin(time.Now())
			time.Sleep(holdTime + 1)
			if !h.hold.After(time.Now()) {
				t.Fatal("the second wait is no longer than the first")
			}
			time.Sleep(holdTime)
			if h.miss(time.Now()) || !time.Now().After(h.hold) {
				t.Fatal("the second wait does not end in a hop")
			}
		}
	})
}

// TestRejectedPromptly fills queues up to their limit.
func TestRejectedPromptly(t *testing.T) {
	for _, kind := range []string{typeQuorum, typeClassic} {
		c := open(t)
		declare(t, c, routing.Queue{Name: "q", Type: kind, MaxLength: 1, Overflow: routing.RejectPublish})
		p := publisherOf(t, c, "")
		rejected := func() time.Duration {
			t.Helper()
			start := time.Now()
			if err := publish(t, p, driver.Message{Key: "q"}); !errors.Is(err, driver.ErrRejected) || errors.Is(err, driver.ErrUnconfirmed) {
				t.Fatalf("%s: publish to a full queue: %v", kind, err)
			}
			return time.Since(start)
		}
		for range 2 { // a quorum queue takes one more than its limit
			if publish(t, p, driver.Message{Key: "q"}) != nil {
				break
			}
		}
		if took := rejected(); took > 5*time.Second {
			t.Errorf("%s: the first refusal took %v", kind, took)
		}
		// What is tried again takes so long at least, each time: one refusal that took
		// less says that they are not, and those that a busy machine held up nothing.
		// There are so few that they would be over before settling is.
		const again = (1<<(maxTries-1) - 1) * nackPause
		prompt := false
		for range settling/again - 4 {
			if prompt = rejected() < again; prompt {
				break
			}
		}
		if !prompt {
			t.Errorf("%s: each later refusal took %v or more: they were tried again", kind, again)
		}
		if _, err := c.Purge(ctxOf(t), "q"); err != nil {
			t.Fatal(err)
		}
		until(t, "the queue takes messages again", func() bool { return publish(t, p, driver.Message{Key: "q"}) == nil })
	}
}

// TestStuckChannelDrains: a channel that refuses everything is closed when what
// is in flight on it has landed, which would be sent twice otherwise.
func TestStuckChannelDrains(t *testing.T) {
	link := testbroker.Proxy(t, testbroker.URL(t, "amqp"))
	c := openURL(t, link.URL())
	declare(t, c, routing.Queue{Name: "q"})
	p := publisherOf(t, c, "")
	check(t, publish(t, p, driver.Message{Key: "q"}))
	channel := func(stuck bool) any {
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		if stuck {
			c.out.nacks.row, c.out.nacks.since = maxNacks, time.Now().Add(-time.Hour)
			signal(c.out.wake)
		}
		if c.out.session == nil {
			return nil
		}
		return c.out.session.ch
	}
	link.Stall(true)
	x := publishing(driver.Message{Key: "q"})
	p.Publish(ctxOf(t), []*driver.Publishing{x}, false)
	before := channel(true)
	until(t, "the outbox holds back", func() bool {
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		return !c.out.nacks.drain.IsZero()
	})
	y := publishing(driver.Message{Key: "q"})
	p.Publish(ctxOf(t), []*driver.Publishing{y}, false)
	link.Stall(false)
	check(t, wait(t, x))
	check(t, wait(t, y))
	if channel(false) != before {
		t.Error("the channel was closed although it took a message")
	}
	if n, err := c.Purge(ctxOf(t), "q"); n != 3 || err != nil {
		t.Errorf("%d messages of 3 are in the queue: %v", n, err)
	}
	channel(true)
	until(t, "there is another channel", func() bool { now := channel(false); return now != nil && now != before })
	check(t, publish(t, p, driver.Message{Key: "q"}))
}
