package redis

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
)

// large is what takes longer than 2 s over a slow link.
func large() (all []*driver.Message) {
	for i := range 50 {
		all = append(all, &driver.Message{Body: bytes.Repeat([]byte{'a'}, 64<<10), Type: fmt.Sprint(i)})
	}
	return all
}

func slow(l *testbroker.Link) { l.Delay(40 * time.Millisecond) } // each 32 KiB at most

// TestLongAnswer: a subscriber that reads an answer for longer than its lease keeps what
// it holds, and is given what it reads, also where it holds nothing.
func TestLongAnswer(t *testing.T) {
	inRounds(t, longAnswer)
}

// inRounds wants one of three to be good: a machine that stands still for most of a lease
// spoils one.
func inRounds(t *testing.T, good func(*testing.T) bool) {
	t.Helper()
	for range 3 {
		if good(t) {
			return
		}
	}
	t.Error("no round was good")
}

func longAnswer(t *testing.T) bool {
	url := testbroker.URL(t, "redis")
	l := testbroker.Proxy(t, url)
	one, _ := dial(t, with(l.URL(), "lease=2s"))
	two, _ := dial(t, url)
	declare(t, two, "holds", "idle")
	holds := subscribe(t, one, "holds", 200)
	if err := publish(t, two, "holds", text("held")); err != nil {
		t.Fatal(err)
	}
	held := expect(t, holds, "held")
	if err := publish(t, two, "idle", large()...); err != nil {
		t.Fatal(err)
	}
	slow(l)
	defer l.Delay(0)
	idle := subscribe(t, one, "idle", 200)
	if err := publish(t, two, "holds", large()...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctxT(t))
	var strikes sync.WaitGroup
	strikes.Go(func() {
		for ctx.Err() == nil {
			for _, q := range []string{"holds", "idle"} {
				_, _ = two.Inspect(ctx, q) // which strikes who is dead
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	defer strikes.Wait()
	defer cancel()
	for _, sub := range []driver.Subscriber{holds, idle} {
		for i := range large() {
			if d := receive(t, sub); d.Message.Type != fmt.Sprint(i) || d.Attempt != 1 {
				t.Logf("message %s, attempt %d, want %d", d.Message.Type, d.Attempt, i)
				return false
			}
		}
	}
	l.Delay(0)
	if err := holds.Settle(ctxT(t), held[0], driver.Ack, 0); err != nil {
		t.Log(err)
		return false
	}
	return true
}

// TestAnswerAfterTheLease: of an answer that was read for longer than the lease, which
// could not be renewed, nobody sees anything: another has got it.
func TestAnswerAfterTheLease(t *testing.T) {
	inRounds(t, answerAfterTheLease)
}

func answerAfterTheLease(t *testing.T) bool {
	b := testbroker.Start(t, "redis")
	adminURL, appURL := documented(t, b.URL())
	two, _ := dial(t, adminURL)
	declare(t, two, "q")
	if err := publish(t, two, "q", large()...); err != nil {
		t.Fatal(err)
	}
	u, err := driver.ParseURL(appURL)
	if err != nil {
		t.Fatal(err)
	}
	may := func(right string) {
		t.Helper()
		if err := raw(t, b.URL()).Do(ctxT(t), "ACL", "SETUSER", u.User, right).Err(); err != nil {
			t.Fatal(err)
		}
	}
	l := testbroker.Proxy(t, appURL)
	one, _ := dial(t, with(l.URL(), "lease=1s"))
	slow(l)
	late := subscribe(t, one, "q", 200)
	info(t, two, "q", driver.QueueInfo{Unsettled: 50, Consumers: 1})
	may("-fcall")
	sub := subscribe(t, two, "q", 50)
	for range large() {
		receive(t, sub)
	}
	l.Delay(0)
	may("+fcall")
	if err := publish(t, two, "q", text("next")); err != nil { // for which only one has room
		t.Fatal(err)
	}
	if d := receive(t, late); d.Message.Type != "" {
		t.Logf("message %s is held by two", d.Message.Type)
		return false
	}
	return true
}
