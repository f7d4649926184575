package leak

import (
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

func wait(begun chan<- struct{}, end <-chan struct{}) {
	close(begun)
	<-end
}

func TestLeft(t *testing.T) {
	if left := Left(10 * time.Second); len(left) > 0 {
		t.Fatalf("before anything was begun:\n%s", strings.Join(left, "\n\n"))
	}
	begun, end := make(chan struct{}), make(chan struct{})
	go wait(begun, end)
	<-begun // before that its stack names nothing
	left := Left(0)
	if len(left) != 1 || !strings.Contains(left[0], "leak.wait") {
		t.Errorf("left: %q, want the stack of wait", left)
	}
	if code := Check(2); code != 2 {
		t.Errorf("Check of tests that failed: %d", code)
	}
	close(end)
	if code := Check(0); code != 0 {
		t.Errorf("Check once it has ended: %d", code)
	}
}
