package faulty

import (
	"context"
	"sync"

	"github.com/polymq/polymq/driver"
)

// link is the way between some clients and the broker.
type link struct {
	mu     sync.Mutex
	held   bool
	free   chan struct{} // closed when not held
	later  []func()      // what goes on when the link does
	conns  []driver.Conn
	killed bool
}

func newLink() *link {
	l := &link{free: make(chan struct{})}
	close(l.free)
	return l
}

func (l *link) pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held {
		l.held, l.free = true, make(chan struct{})
	}
}

func (l *link) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held || l.killed {
		return
	}
	for _, f := range l.later {
		f()
	}
	l.later, l.held = nil, false
	close(l.free)
}

// kill ends the link as the death of its clients does.
func (l *link) kill() {
	l.pause()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.killed, l.later = true, nil
	for _, c := range l.conns {
		_ = c.Close(context.Background()) // in memory: what it held goes back
	}
}

func (l *link) dead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.killed
}

func (l *link) open() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.held
}

// wait returns when the link is open, or ctx's error.
func (l *link) wait(ctx context.Context) error {
	l.mu.Lock()
	free := l.free
	l.mu.Unlock()
	select {
	case <-free:
		return nil
	default:
	}
	select {
	case <-free:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// send does f now, or when the link goes on.
func (l *link) send(f func()) {
	l.mu.Lock()
	if l.held {
		l.later = append(l.later, f)
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	f()
}
