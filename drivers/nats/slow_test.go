package nats

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestSlowLinkCountsNothing: over a slow link, messages that a subscriber only
// prefetched and gave back are neither lost nor at their second attempt.
func TestSlowLinkCountsNothing(t *testing.T) {
	const messages = 600
	url := testbroker.URL(t, "nats")
	c := open(t, url)
	declare(t, c, routing.Queue{Name: "q", MaxAttempts: 1})
	ids := make([]string, messages)
	for i := range ids {
		ids[i] = fmt.Sprint("m", i)
	}
	publish(t, publisherOf(t, c), "q", ids...)
	first := subscribe(t, c, "q", messages)
	for {
		info, err := c.Inspect(within(t), "q")
		if err != nil {
			t.Fatal(err)
		}
		if info.Ready == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := first.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	second := subscribe(t, open(t, slowed(t, url, 10*time.Millisecond)), "q", messages)
	ctx := within(t)
	buf := make([]*driver.Delivery, messages)
	for got := 0; got < messages; {
		n, err := second.Receive(ctx, buf)
		if err != nil {
			t.Fatalf("%d of %d messages came: %v", got, messages, err)
		}
		for _, d := range buf[:n] {
			if d.Attempt != 1 {
				t.Fatalf("%s: attempt %d", d.Message.ID, d.Attempt)
			}
		}
		got += n
	}
}

// slowed is the URL of a relay that holds up each way by delay.
func slowed(t *testing.T, url string, delay time.Duration) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	at := strings.LastIndexByte(url, '@') + 1
	if at == 0 {
		at = strings.Index(url, "://") + 3
	}
	end := len(url)
	if i := strings.IndexAny(url[at:], "/?"); i >= 0 {
		end = at + i
	}
	target := url[at:end]
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				near.Close()
				continue
			}
			go relay(near, far, delay)
			go relay(far, near, delay)
		}
	}()
	return url[:at] + l.Addr().String() + url[end:]
}

func relay(dst, src net.Conn, delay time.Duration) {
	type chunk struct {
		data []byte
		due  time.Time
	}
	chunks := make(chan chunk, 10000)
	go func() {
		defer dst.Close()
		for c := range chunks {
			time.Sleep(time.Until(c.due))
			dst.Write(c.data)
		}
	}()
	defer close(chunks)
	for {
		data := make([]byte, 64<<10)
		n, err := src.Read(data)
		if err != nil {
			return
		}
		chunks <- chunk{data[:n], time.Now().Add(delay)}
	}
}
