package amqp

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// highWater is how many unsent bytes of a wire hold publishers back.
const highWater = 1 << 20

// wire is the net.Conn under one amqp091 connection. Write only appends to a
// buffer; one goroutine, the wire's own, sends what has gathered, so that
// concurrent publishes share system calls while a lone one leaves at once, and
// no caller ever blocks in TCP. A failed send closes the socket, by which
// amqp091 learns of it.
type wire struct {
	net.Conn
	// onRead, when set before the first Read, runs before each Read: all
	// frames of earlier reads have been dispatched by then.
	onRead func()
	// onRoom runs when a full buffer has drained.
	onRoom func()
	// sieve, when set before the first Read, is what Read reads from.
	sieve *sieve

	kick chan struct{} // cap 1
	done chan struct{} // closed when the sender has ended

	mu     sync.Mutex
	buf    []byte
	unsent int // bytes buffered or being sent
	full   bool
	closed bool
	err    error
}

func newWire(c net.Conn) *wire {
	w := &wire{Conn: c, kick: make(chan struct{}, 1), done: make(chan struct{})}
	go w.send()
	return w
}

func (w *wire) Read(b []byte) (int, error) {
	if w.onRead != nil {
		w.onRead()
	}
	if w.sieve != nil {
		return w.sieve.Read(b)
	}
	return w.Conn.Read(b)
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	if w.err != nil || w.closed {
		err := w.err
		w.mu.Unlock()
		if err == nil {
			err = net.ErrClosed
		}
		return 0, err
	}
	idle := len(w.buf) == 0
	w.buf = append(w.buf, b...)
	w.unsent += len(b)
	w.mu.Unlock()
	if idle {
		signal(w.kick)
	}
	return len(b), nil
}

// congested reports whether publishers should hold back; onRoom tells when
// that is over.
func (w *wire) congested() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unsent > highWater {
		w.full = true
	}
	return w.full
}

func (w *wire) send() {
	defer close(w.done)
	var out []byte
	for {
		w.mu.Lock()
		out, w.buf = w.buf, out[:0]
		closed := w.closed
		w.mu.Unlock()
		if len(out) == 0 {
			if closed {
				return
			}
			<-w.kick
			continue
		}
		_, err := w.Conn.Write(out)
		w.mu.Lock()
		w.unsent -= len(out)
		room := w.full && w.unsent <= highWater/2
		if room {
			w.full = false
		}
		if err != nil {
			w.err = err
		}
		w.mu.Unlock()
		if err != nil {
			w.Conn.Close()
			return
		}
		if room && w.onRoom != nil {
			w.onRoom()
		}
		// A buffer as full as publishers make it is kept, or each would be made
		// anew by doubling: what is larger was one large message.
		if cap(out) > 2*highWater {
			out = nil
		}
	}
}

// Close sends what is buffered, for at most a second, and closes the socket.
func (w *wire) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	signal(w.kick)
	select {
	case <-w.done:
	case <-time.After(time.Second):
	}
	err := w.Conn.Close()
	<-w.done
	return err
}

// patient is a TCP connection whose Write fails only when nothing at all could
// be sent for the timeout, and not while the broker has said that it reads
// nothing (connection.blocked). It lies below TLS, which a failed write breaks.
type patient struct {
	net.Conn
	timeout time.Duration
	blocked atomic.Bool
}

func (p *patient) Write(b []byte) (int, error) {
	sent := 0
	for {
		if err := p.SetWriteDeadline(time.Now().Add(p.timeout)); err != nil {
			return sent, err
		}
		n, err := p.Conn.Write(b[sent:])
		sent += n
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 && !p.blocked.Load() {
			return sent, err
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
