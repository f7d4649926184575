package main

import (
	"net"
	"sync"
	"time"
)

// gathering is a connection whose writes return at once: one goroutine sends
// what has come together meanwhile. amqp091-go writes each frame by itself.
type gathering struct {
	net.Conn
	kick chan struct{} // cap 1
	done chan struct{}

	mu     sync.Mutex
	space  sync.Cond // the buffer was taken
	buf    []byte
	err    error
	closed bool
}

const gatherLimit = 256 << 10

func dialGathering(network, addr string) (net.Conn, error) {
	c, err := net.DialTimeout(network, addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	// amqp091-go sets this deadline off itself once the handshake is over.
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	g := &gathering{Conn: c, kick: make(chan struct{}, 1), done: make(chan struct{})}
	g.space.L = &g.mu
	go g.run()
	return g, nil
}

func (g *gathering) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.buf) > gatherLimit && g.err == nil && !g.closed {
		g.space.Wait()
	}
	if g.closed {
		return 0, net.ErrClosed
	}
	if g.err != nil {
		return 0, g.err
	}
	g.buf = append(g.buf, b...)
	select {
	case g.kick <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (g *gathering) run() {
	defer close(g.done)
	var spare []byte
	for range g.kick {
		for {
			g.mu.Lock()
			out := g.buf
			g.buf = spare[:0]
			g.space.Broadcast()
			g.mu.Unlock()
			spare = out
			if len(out) == 0 {
				break
			}
			if _, err := g.Conn.Write(out); err != nil {
				g.mu.Lock()
				g.err = err
				g.space.Broadcast()
				g.mu.Unlock()
				return
			}
		}
	}
}

// Close sends what is left.
func (g *gathering) Close() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return net.ErrClosed
	}
	g.closed = true
	close(g.kick)
	g.space.Broadcast()
	g.mu.Unlock()
	<-g.done
	return g.Conn.Close()
}
