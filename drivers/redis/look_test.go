package redis

import (
	"testing"
	"time"

	"github.com/polymq/polymq/internal/nowait"
	"github.com/polymq/polymq/internal/testbroker"
)

// TestLook: after some looks in vain each costs the next answers theirs, twice as many
// each time and not more than maxPass; one that finds something makes up for all; and
// nothing is looked for unasked, or for the first message after a pause.
func TestLook(t *testing.T) {
	conn, peer := testbroker.Pair(t)
	look, p := look{socket: nowait.New(conn)}, make([]byte, 9)
	if look.socket == nil {
		look.on = true
		if n := look.read(p); n != 0 || look.pass != 0 {
			t.Fatalf("%d bytes, %d to pass, of no socket", n, look.pass)
		}
		return
	}
	look.on = true
	if look.read(p); look.vain > 0 || look.last.IsZero() {
		t.Fatal("looked for the answer to the first message")
	}
	for vain := 1; vain < 20; vain++ {
		look.on, look.last = true, time.Now().Add(time.Hour)
		look.read(p)
		want := 0
		if vain > maxVain {
			want = min(1<<(vain-maxVain), maxPass)
		}
		if look.pass != want || look.on {
			t.Fatalf("after %d looks in vain %d answers pass, not %d", vain, look.pass, want)
		}
		if want > 0 {
			look.on = true
			look.read(p)
			if look.pass != want-1 || look.vain != vain {
				t.Fatalf("an answer that is to pass was looked for")
			}
			look.pass = 0
		}
	}
	if _, err := peer.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	if n := look.read(p); n != 0 {
		t.Fatal("looked unasked")
	}
	for deadline := time.Now().Add(10 * time.Second); look.vain > 0; look.pass = 0 {
		look.on, look.last = true, time.Now().Add(time.Hour)
		if n := look.read(p); n > 0 && string(p[:n]) != "answer" {
			t.Fatalf("read %q", p[:n])
		}
		if time.Now().After(deadline) {
			t.Fatal("what is there is not found")
		}
	}
}
