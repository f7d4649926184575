package amqp

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// highWater is how many unsent bytes of a wire hold publishers back.
	highWater = 1 << 20
	// maxOffer is how many bytes a caller sends itself: other publishers wait for it.
	maxOffer = 16 << 10
)

// wire is what one amqp091 connection reads from and writes to. Write only
// appends to a buffer; one goroutine, the wire's own, sends what has gathered, so
// that concurrent publishes share system calls, and no caller ever blocks in TCP.
// What is urgent, a lone publish, does not wait for that goroutine where TCP takes
// it at once. A failed send closes the socket, by which amqp091 learns of it. The
// wire has no deadlines, which amqp091 would have a goroutine move for each frame
// that comes: patient keeps them.
type wire struct {
	conn net.Conn
	// urgent says that nothing more is to be gathered with what is written now.
	urgent atomic.Bool
	// onRead, when set before the first Read, runs before each Read: all
	// frames of earlier reads have been dispatched by then.
	onRead func()
	// onRoom runs when a full buffer has drained.
	onRoom func()
	// from is what Read reads from: conn, unless set before the first Read.
	from io.Reader

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
	w := &wire{conn: c, from: c, kick: make(chan struct{}, 1), done: make(chan struct{})}
	go w.send()
	return w
}

func (w *wire) Read(b []byte) (int, error) {
	if w.onRead != nil {
		w.onRead()
	}
	return w.from.Read(b)
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
	sent := 0
	if w.unsent == 0 && len(b) <= maxOffer && w.urgent.Load() {
		if p, ok := w.conn.(*patient); ok { // else what TLS makes of it must be sent whole
			sent = p.offer(b)
		}
	}
	idle := len(w.buf) == 0
	w.buf = append(w.buf, b[sent:]...)
	w.unsent += len(b) - sent
	w.mu.Unlock()
	if idle && sent < len(b) {
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
		_, err := w.conn.Write(out)
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
			w.cut()
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

// cut closes the socket at once.
func (w *wire) cut() {
	if t, ok := w.conn.(*tls.Conn); ok {
		t.NetConn().Close() // its own Close would tell the broker first, and wait for TCP to take that
		return
	}
	w.conn.Close()
}

// LocalAddr and RemoteAddr are for who asks the native connection.
func (w *wire) LocalAddr() net.Addr  { return w.conn.LocalAddr() }
func (w *wire) RemoteAddr() net.Addr { return w.conn.RemoteAddr() }

// Close sends what is buffered, for at most a second, and closes the socket.
func (w *wire) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	signal(w.kick)
	defer time.AfterFunc(time.Second, w.cut).Stop()
	<-w.done
	return w.conn.Close()
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
