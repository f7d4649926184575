package redis

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
)

// with adds options to a URL.
func with(url, options string) string {
	if strings.Contains(url, "?") {
		return url + "&" + options
	}
	return url + "?" + options
}

var clusters = []string{"redis+sentinel", "redis+cluster"}

// TestLeaderKilledUnderLoad: whatever was confirmed arrives, and publishers and
// subscribers go on by themselves.
func TestLeaderKilledUnderLoad(t *testing.T) {
	for _, scheme := range clusters {
		t.Run(scheme, func(t *testing.T) {
			c := testbroker.StartCluster(t, scheme)
			conn, _ := dial(t, with(c.URL(), "lease=2s&replicas=1"))
			const queues, least, after = 4, 100, 50
			names := make([]string, queues)
			for i := range names {
				names[i] = fmt.Sprintf("q%d", i)
			}
			declare(t, conn, names...)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			killed := make(chan struct{})
			var publishing, consuming sync.WaitGroup
			var mu sync.Mutex
			sent := map[string]int{}
			came := map[string]int{}
			warm := make(chan struct{}, queues)
			for _, q := range names {
				publishing.Go(func() {
					gap, last, left := time.Duration(0), time.Now(), after
					for i := 0; left > 0; i++ {
						if err := publishCtx(ctx, t, conn, q, text(fmt.Sprint(q, " ", i))); err != nil {
							t.Errorf("%s: message %d: %v", q, i, err)
							warm <- struct{}{}
							return
						}
						gap, last = max(gap, time.Since(last)), time.Now()
						mu.Lock()
						sent[fmt.Sprint(q, " ", i)]++
						mu.Unlock()
						if i == least {
							warm <- struct{}{}
						}
						select {
						case <-killed:
							left--
						default:
						}
					}
					t.Logf("%s: the longest time from one confirmed publish to the next: %v", q, gap.Round(time.Millisecond))
				})
				sub := subscribe(t, conn, q, 10)
				consuming.Go(func() {
					buf := make([]*driver.Delivery, 10)
					for {
						n, err := sub.Receive(ctx, buf)
						if err != nil {
							t.Errorf("%s: Receive: %v", q, err)
							return
						}
						for _, d := range buf[:n] {
							body := string(d.Message.Body)
							_ = sub.Settle(ctx, d, driver.Ack, 0) // lost ones come again
							if body == "end" {
								return
							}
							mu.Lock()
							came[body]++
							mu.Unlock()
						}
					}
				})
			}
			for range names {
				<-warm
			}
			leader := c.Leader()
			leader.Kill()
			close(killed)
			if scheme == "redis+cluster" {
				// Who takes over has no replica that could confirm anything, until
				// the old one is back. It is back after that.
				time.Sleep(5 * time.Second)
				leader.Start()
			}
			publishing.Wait()
			for _, q := range names {
				if err := publishCtx(ctx, t, conn, q, text("end")); err != nil {
					t.Error(err)
				}
			}
			consuming.Wait()
			again := 0
			for body := range sent {
				if came[body] == 0 {
					t.Errorf("%q was confirmed and never came", body)
				}
				again += max(came[body]-1, 0)
			}
			t.Logf("%d confirmed, %d deliveries more than once", len(sent), again)
		})
	}
}
