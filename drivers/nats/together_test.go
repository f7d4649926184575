package nats

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestPausedProcess: a process that is cut off for longer than its lease loses
// what it holds; when it is back, with the log cut short meanwhile, it takes part
// again.
func TestPausedProcess(t *testing.T) { withLeases(t, pausedProcess) }

func pausedProcess(t testing.TB, lease time.Duration) {
	url := testbroker.URL(t, "nats")
	link := testbroker.Proxy(t, url+fmt.Sprint("&lease=", lease))
	direct := openRaw(t, url)
	c, paused := emulated(t, direct), open(t, link.URL())
	q := routing.Queue{Name: "q", MaxPriority: 1}
	declare(t, c, q)
	p := publisherOf(t, c)
	away := subscribe(t, paused, "q", 5)
	mustPublish(t, p, "q", numbered("m", 0, 20)...)
	held := receive(t, away, 5)
	link.Stall(true)
	defer link.Stall(false)
	there := subscribe(t, c, "q", 20)
	l := ledgerOf(t, direct, q)
	got := map[string]int{}
	for len(got) < 20 {
		d := receive(t, there, 1)[0]
		got[d.Message.ID] = d.Attempt
		settle(t, there, d, driver.Ack, 0)
		if len(got)%5 == 0 {
			inspect(t, c, "q")
			if err := l.settleUp(within(t)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range 20 {
		if want := 1 + (24-i)/20; got[fmt.Sprint("m", i)] != want {
			t.Errorf("m%d came with attempt %d, not %d", i, got[fmt.Sprint("m", i)], want)
		}
	}
	link.Stall(false)
	if err := away.Settle(within(t), held[0], driver.Ack, 0); err == nil {
		t.Error("what was lost could be settled")
	}
	for ctx := within(t); inspect(t, c, "q") != (driver.QueueInfo{Consumers: 2}); {
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			t.Fatalf("%+v", inspect(t, c, "q"))
		}
	}
	if err := there.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	mustPublish(t, p, "q", "n0", "n1")
	expect(t, away, "n0", "n1")
}

// TestBooksAgree: whatever their connections suffer, and whoever writes the book
// down, processes that are at the same place have the same book.
func TestBooksAgree(t *testing.T) {
	url := testbroker.URL(t, "nats") + "&lease=3s"
	const processes = 3
	q := routing.Queue{Name: "q", MaxPriority: 2, MaxLength: 300, Overflow: routing.RejectPublish}
	declare(t, open(t, url), q)
	var ledgers []*ledger
	var links []*testbroker.Link
	var working sync.WaitGroup
	stop := make(chan struct{})
	for i := range processes {
		link := testbroker.Proxy(t, url)
		s := openRaw(t, link.URL())
		c := emulated(t, s)
		ledgers, links = append(ledgers, ledgerOf(t, s, q)), append(links, link)
		p, sub := publisherOf(t, c), subscribe(t, c, "q", 20)
		working.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					publish(t, p, "q", numbered(fmt.Sprintf("m%d-%d-", i, n), 0, 30)...)
				}
			}
		})
		go func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			buf := make([]*driver.Delivery, 10)
			for {
				n, err := sub.Receive(t.Context(), buf)
				if err != nil {
					return
				}
				for _, d := range buf[:n] {
					switch r.IntN(8) {
					case 0:
						sub.Settle(t.Context(), d, driver.Nack, time.Duration(r.IntN(3))*100*time.Millisecond)
					case 1: // forgotten
					default:
						sub.Settle(t.Context(), d, driver.Ack, 0)
					}
				}
			}
		}()
	}
	r := rand.New(rand.NewPCG(2, 3))
	for range 30 {
		i := r.IntN(processes)
		l := ledgers[i]
		l.mu.Lock()
		live := l.book != nil && l.load == nil
		l.mu.Unlock()
		switch r.IntN(8) {
		case 0:
			links[i].Cut()
		case 1:
			l.mu.Lock()
			if l.trail != nil {
				l.trail.die()
			}
			l.mu.Unlock()
		default:
			if live {
				l.settleUp(t.Context())
			}
		}
		time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond)
	}
	close(stop)
	working.Wait()
	for compared, ctx := 0, within(t); compared < 5; {
		if err := wait(ctx, time.Millisecond); err != nil {
			t.Fatalf("compared %d times: %v", compared, err)
		}
		books := map[uint64]string{}
		for _, l := range ledgers {
			l.mu.Lock()
			if l.book != nil && l.load == nil {
				book := l.book.dump()
				if other, ok := books[l.at]; !ok {
					books[l.at] = book
				} else if compared++; other != book {
					t.Fatalf("at %d one has\n%s\nand another\n%s", l.at, other, book)
				}
			}
			l.mu.Unlock()
		}
	}
}
