package amqp

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq/internal/nowait"
)

// patient is a TCP connection whose Write fails only when nothing at all could
// be sent for the timeout, and not while the broker has said that it reads
// nothing (connection.blocked); and whose Read fails when nothing has come for so
// long that the broker's heartbeats must have. It lies below TLS, which a failed
// write breaks.
type patient struct {
	net.Conn
	timeout time.Duration
	blocked atomic.Bool
	silence atomic.Int64 // the longest, in ns; 0 while the broker does not send heartbeats yet
	socket  *nowait.Conn
}

func newPatient(c net.Conn, timeout time.Duration) *patient {
	return &patient{Conn: c, timeout: timeout, socket: nowait.New(c)}
}

// offer sends what TCP takes at once, and says how much that was. An error is
// Write's to find. It must not be called beside Write.
func (p *patient) offer(b []byte) int {
	if p.socket == nil || p.SetWriteDeadline(time.Now().Add(p.timeout)) != nil {
		return 0
	}
	return p.socket.Write(b)
}

// heartbeats says for how long the broker is never silent, as was agreed, 0 for any
// time: it sends something twice in it. A Read that waits heeds it too.
func (p *patient) heartbeats(agreed time.Duration) {
	if agreed > 0 {
		silence := 3 * agreed / 2 // amqp091's patience
		p.silence.Store(int64(silence))
		_ = p.SetReadDeadline(time.Now().Add(silence)) // a closed connection's Read says so
	}
}

func (p *patient) Read(b []byte) (int, error) {
	if silence := p.silence.Load(); silence > 0 {
		if err := p.SetReadDeadline(time.Now().Add(time.Duration(silence))); err != nil {
			return 0, err
		}
	}
	return p.Conn.Read(b)
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
