//go:build unix

package nowait

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/polymq/polymq/internal/testbroker"
)

// TestNoWait: a socket that has nothing and one that is full answer at once, and what
// is there is had.
func TestNoWait(t *testing.T) {
	a, b := testbroker.Pair(t)
	c := New(a)
	buf := make([]byte, 1<<20)
	if n := c.Read(buf); n != 0 {
		t.Fatalf("read %d bytes of nothing", n)
	}
	if _, err := b.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := ""
	for deadline := time.Now().Add(10 * time.Second); got != "hello"; {
		n := c.Read(buf)
		got += string(buf[:n])
		if time.Now().After(deadline) {
			t.Fatalf("read %q", got)
		}
	}
	sent := 0
	for {
		n := c.Write(buf)
		if n == 0 {
			break // the peer reads nothing
		}
		sent += n
	}
	if sent == 0 {
		t.Fatal("nothing was sent into an empty buffer")
	}
}

// TestNoWaitAtTheEnd: the end, a deadline and an error are for the connection's own
// calls to tell.
func TestNoWaitAtTheEnd(t *testing.T) {
	a, b := testbroker.Pair(t)
	c := New(a)
	if _, err := b.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	_ = a.SetDeadline(time.Unix(1, 0))
	if n := c.Read(make([]byte, 9)) + c.Write([]byte("x")); n != 0 {
		t.Fatalf("%d bytes after the deadline", n)
	}
	_ = a.Close()
	if n := c.Read(make([]byte, 9)) + c.Write([]byte("x")); n != 0 {
		t.Fatalf("%d bytes of a closed connection", n)
	}
}

// TestNoWaitAllocs: none.
func TestNoWaitAllocs(t *testing.T) {
	a, _ := testbroker.Pair(t)
	c, buf := New(a), make([]byte, 9)
	if n := testing.AllocsPerRun(100, func() { c.Read(buf) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// TestNoWaitWithoutSocket: TLS, say, is left to itself.
func TestNoWaitWithoutSocket(t *testing.T) {
	a, _ := testbroker.Pair(t)
	c := New(tls.Client(a, &tls.Config{ServerName: "x"}))
	if n := c.Read(make([]byte, 9)) + c.Write([]byte("x")); n != 0 {
		t.Fatalf("%d bytes beside TLS", n)
	}
}
