package redis

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
)

// onlyStream is the key of the one queue there is.
func onlyStream(t *testing.T, s *store) string {
	t.Helper()
	streams, err := s.calls().Keys(ctxT(t), s.cfg.prefix+":*}").Result()
	if err != nil || len(streams) != 1 {
		t.Fatal(streams, err)
	}
	return streams[0]
}

// TestGivenBackByOthersIsFirst: what another gave back goes before new entries
// that were read together with the news of it, and neither counts.
func TestGivenBackByOthersIsFirst(t *testing.T) {
	conn, s := dial(t, testbroker.URL(t, "redis"))
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a"), text("b"), text("c")); err != nil {
		t.Fatal(err)
	}
	ctx, key := ctxT(t), onlyStream(t, s)
	for _, args := range [][]any{
		{"FCALL", plainFunctions.join, "1", key, "other", "30000"},
		{"XREADGROUP", "GROUP", group, "other", "COUNT", "1", "STREAMS", key, ">"},
		{"FCALL", plainFunctions.leave, "1", key, "other"},
	} {
		if err := s.calls().Do(ctx, args...).Err(); err != nil {
			t.Fatal(args, err)
		}
	}
	sub := subscribe(t, conn, "q", 10)
	for _, d := range expect(t, sub, "a", "b", "c") {
		if d.Attempt != 1 || d.Redelivered {
			t.Errorf("%s: attempt %d, redelivered %v", d.Message.Body, d.Attempt, d.Redelivered)
		}
		settle(t, sub, driver.Ack, d)
	}
	info(t, conn, "q", driver.QueueInfo{Consumers: 1})
}

// TestReadWithoutFunctions: what was read in one go with a call of a function
// that was missing is neither lost nor counted.
func TestReadWithoutFunctions(t *testing.T) {
	b := testbroker.Start(t, "redis")
	conn, s := dial(t, b.URL())
	declare(t, conn, "q")
	sub := subscribe(t, conn, "q", 1)
	for range 5 {
		if err := publish(t, conn, "q", text("a"), text("b")); err != nil {
			t.Fatal(err)
		}
		a := expect(t, sub, "a")
		if err := s.calls().FunctionFlush(ctxT(t)).Err(); err != nil {
			t.Fatal(err)
		}
		settle(t, sub, driver.Ack, a...)
		d := receive(t, sub)
		if string(d.Message.Body) != "b" || d.Attempt != 1 {
			t.Fatalf("got %q, attempt %d", d.Message.Body, d.Attempt)
		}
		settle(t, sub, driver.Ack, d)
	}
	info(t, conn, "q", driver.QueueInfo{Consumers: 1})
}

// TestReadAfterTheBlow: what was read under a name after that was struck goes
// back, uncounted, when its owner joins again.
func TestReadAfterTheBlow(t *testing.T) {
	conn, s := dial(t, testbroker.URL(t, "redis"))
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a")); err != nil {
		t.Fatal(err)
	}
	ctx, key := ctxT(t), onlyStream(t, s)
	for _, args := range [][]any{
		{"XREADGROUP", "GROUP", group, "struck", "STREAMS", key, ">"},
		{"FCALL", plainFunctions.join, "1", key, "next", "30000", "struck"},
	} {
		if err := s.calls().Do(ctx, args...).Err(); err != nil {
			t.Fatal(args, err)
		}
	}
	sub := subscribe(t, conn, "q", 10)
	if d := receive(t, sub); string(d.Message.Body) != "a" || d.Attempt != 1 {
		t.Fatalf("got %+v", d)
	}
}

// TestAnswerInPieces: an answer is read alike however it comes, also where an entry
// is larger than the buffer, and what follows it stays for the next one.
func TestAnswerInPieces(t *testing.T) {
	var text strings.Builder
	bulk := func(s string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(s), s) }
	sizes := []int{0, 1, minBuffer - 1, minBuffer, 3 * minBuffer, 2*maxBuffer + 1, 7}
	fmt.Fprintf(&text, "*1\r\n*2\r\n%s*%d\r\n", bulk("key"), len(sizes))
	for i, n := range sizes {
		fmt.Fprintf(&text, "*2\r\n%s*4\r\n%s%s%s%s", bulk(fmt.Sprintf("5-%d", i)), bulk("id"), bulk(fmt.Sprint("m", i)), bulk(bodyField), bulk(strings.Repeat("x", n)))
	}
	text.WriteString(":7\r\n-ERR no\r\n:8\r\n")
	whole := []byte(text.String())
	for name, from := range map[string]io.Reader{
		"whole":  bytes.NewReader(whole),
		"bytes":  iotest.OneByteReader(bytes.NewReader(whole)),
		"halves": iotest.HalfReader(bytes.NewReader(whole)),
		"end":    iotest.DataErrReader(bytes.NewReader(whole)),
	} {
		t.Run(name, func(t *testing.T) {
			a := answer{from: from}
			var r fetch
			n, err := a.stream()
			if err != nil || n != len(sizes) {
				t.Fatalf("%d entries, %v", n, err)
			}
			r.take(&a, n, nil)
			if len(r.ds) != len(sizes) || a.err != nil {
				t.Fatalf("%d deliveries, %v", len(r.ds), a.err)
			}
			for i, d := range r.ds {
				if m := d.Message; len(m.Body) != sizes[i] || m.ID != fmt.Sprint("m", i) || r.holds[i].id != fmt.Sprintf("5-%d", i) {
					t.Errorf("entry %d: ID %q, a body of %d", i, m.ID, len(m.Body))
				}
			}
			if n := a.integer(); n != 7 {
				t.Errorf("%d follows", n)
			}
			if err := a.peek(); reply(err) != "ERR no" {
				t.Errorf("the error is %v", err)
			}
			if n := a.integer(); n != 8 || a.err != nil {
				t.Errorf("%d follows the error, %v", n, a.err)
			}
			if a.integer(); !lost(a.err) {
				t.Errorf("the end is %v", a.err)
			}
		})
	}
}

// TestCloseAmidFetches: a subscriber that closes while the fetch after the next is
// under way gives back what nobody has seen, uncounted, and what it acknowledged is
// done.
func TestCloseAmidFetches(t *testing.T) {
	conn, _ := dial(t, testbroker.URL(t, "redis"))
	declare(t, conn, "q")
	const all, rounds = 3000, 10
	var ms []*driver.Message
	for i := range all {
		ms = append(ms, text(fmt.Sprint(i)))
	}
	if err := publish(t, conn, "q", ms...); err != nil {
		t.Fatal(err)
	}
	buf := make([]*driver.Delivery, 32)
	for next := 0; next < all; {
		sub := subscribe(t, conn, "q", 64)
		for end := next + all/rounds; next < end; {
			n, err := sub.Receive(ctxT(t), buf[:min(len(buf), end-next)])
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range buf[:n] {
				if string(d.Message.Body) != fmt.Sprint(next) || d.Attempt != 1 {
					t.Fatalf("%s at attempt %d, want %d", d.Message.Body, d.Attempt, next)
				}
				settle(t, sub, driver.Ack, d)
				next++
			}
		}
		if err := sub.Close(ctxT(t)); err != nil {
			t.Fatal(err)
		}
		info(t, conn, "q", driver.QueueInfo{Ready: all - next})
	}
}

// TestEveryAckArrives: what is acknowledged while the reader is about to wait, for
// messages or for room, is settled though nothing else happens.
func TestEveryAckArrives(t *testing.T) {
	for _, prefetch := range []int{1, 2, 4, 64} {
		t.Run(fmt.Sprint(prefetch), func(t *testing.T) {
			conn, s := dial(t, testbroker.URL(t, "redis"))
			declare(t, conn, "q")
			key := onlyStream(t, s)
			sub := subscribe(t, conn, "q", prefetch)
			for n := range 60 {
				var batch []*driver.Message
				for range 1 + n%4 {
					batch = append(batch, text("m"))
				}
				if err := publish(t, conn, "q", batch...); err != nil {
					t.Fatal(err)
				}
				for left := len(batch) - 1; left >= 0; left-- {
					settle(t, sub, driver.Ack, receive(t, sub))
					if left > 0 && n%3 == 0 {
						continue
					}
					until(t, "what was acknowledged is there yet", func() bool { return s.calls().XLen(ctxT(t), key).Val() == int64(left) })
				}
			}
		})
	}
}
