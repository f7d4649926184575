package redis

import (
	"context"
	"net"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/polymq/polymq/internal/nowait"
)

// socket is a connection that the client has begun, TLS, user and database
// included, and on which we speak ourselves from then on: the client makes a reader
// for each string of an answer, and can do nothing while it waits for one.
type socket struct {
	net.Conn
	client *goredis.Client // which nothing uses any more
	node   *node
	id     int64         // by which the server knows it
	rest   time.Duration // in which what is left of a long answer must go on coming
	came   func()        // is told of each piece of one; nil: nobody is

	cut  atomic.Bool // interrupt
	look look

	command []byte // the words of the one that is being written
	count   int    // how many these are
	out     []byte // commands to be sent
	in      answer
}

// taken keeps the client, which takes the connection for idle, from looking into it
// before it closes it: it would wait there until our read is over.
type taken struct{ net.Conn }

const (
	minBuffer = 4 << 10
	maxBuffer = 64 << 10 // it is larger for as long as an entry is
)

// socket makes one.
func (n *node) socket(ctx context.Context, c config) (*socket, error) {
	o := c.options(n.addr)
	o.PoolSize = 1
	o.ReadBufferSize, o.WriteBufferSize = 512, 512
	var made atomic.Pointer[net.Conn]
	dial := o.Dialer
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		conn = taken{conn}
		made.Store(&conn)
		return conn, err
	}
	k := &socket{client: goredis.NewClient(o), node: n, rest: c.timeout}
	n.own(k.client)
	var err error
	if k.id, err = k.client.ClientID(ctx).Result(); err != nil {
		_ = k.Close()
		return nil, err
	}
	k.Conn = *made.Load()
	if runtime.GOMAXPROCS(0) > 1 { // else whoever looks holds everybody up
		k.look.socket = nowait.New(k.Conn.(taken).Conn)
	}
	k.in.from = k
	return k, nil
}

// wait bounds how long the next answer may take.
func (k *socket) wait(d time.Duration) {
	_ = k.SetReadDeadline(time.Now().Add(d))
	k.heed()
}

// heed keeps an interrupted connection so when a deadline was set.
func (k *socket) heed() {
	if k.cut.Load() {
		k.interrupt()
	}
}

// interrupt breaks what is under way and what is to come. It does not wait.
func (k *socket) interrupt() {
	k.cut.Store(true)
	_ = k.SetDeadline(time.Unix(1, 0))
}

func (k *socket) Read(p []byte) (int, error) {
	n, err := k.look.read(p), error(nil)
	if n == 0 {
		n, err = k.Conn.Read(p)
	}
	if n >= minBuffer {
		k.wait(k.rest)
		if k.came != nil {
			k.came()
		}
	}
	return n, err
}

func (k *socket) Close() error {
	k.node.disown(k.client)
	err := k.client.Close()
	if k.Conn != nil {
		_ = k.Conn.Close() // whatever the client thinks of it
	}
	return err
}

// end ends a command of which all words are there.
func (k *socket) end() {
	k.out = append(k.out, '*')
	k.out = appendLine(k.out, k.count)
	k.out = append(k.out, k.command...)
	k.command, k.count = k.command[:0], 0
}

func appendLine(b []byte, n int) []byte {
	return append(strconv.AppendInt(b, int64(n), 10), '\r', '\n')
}

func (k *socket) words(ws ...string) {
	for _, w := range ws {
		k.word(w)
	}
}

func (k *socket) word(w string) {
	k.command = appendWord(k.command, w)
	k.count++
}

func appendWord[T string | []byte](b []byte, w T) []byte {
	return append(append(appendLine(append(b, '$'), len(w)), w...), '\r', '\n')
}

func (k *socket) number(n int) {
	var digits [20]byte
	k.word(str(strconv.AppendInt(digits[:0], int64(n), 10)))
}

// send sends the commands; their answers are there within the timeout.
func (k *socket) send(timeout time.Duration) error {
	_ = k.SetReadDeadline(time.Now().Add(timeout))
	return k.flush(timeout)
}

// flush sends the commands.
func (k *socket) flush(timeout time.Duration) error {
	err := k.write(k.out, timeout)
	if k.out = k.out[:0]; cap(k.out) > 2*maxBuffer {
		k.out, k.command = nil, nil
	}
	return err
}

// write sends; the timeout is that of each piece, so that a large message has the time
// that it takes.
func (k *socket) write(b []byte, timeout time.Duration) error {
	for len(b) > 0 {
		piece := b[:min(len(b), maxBuffer)]
		_ = k.SetWriteDeadline(time.Now().Add(timeout))
		k.heed()
		if _, err := k.Write(piece); err != nil {
			k.interrupt() // the server would take what follows for the rest of this
			return err
		}
		b = b[len(piece):]
	}
	return nil
}

// put adds words to a command that is longer than it should be kept: what there is
// of it is sent when it is much.
func (k *socket) put(words []byte, timeout time.Duration) error {
	if len(k.out)+len(words) <= maxBuffer {
		k.out = append(k.out, words...)
		return nil
	}
	err := k.write(k.out, timeout)
	k.out = k.out[:0]
	switch {
	case err != nil:
		return err
	case len(words) > maxBuffer/2:
		return k.write(words, timeout)
	}
	k.out = append(k.out, words...)
	return nil
}

// connect makes sure of a connection of the reader's own, to the server that holds
// the queue.
func (c *consumer) connect() error {
	if c.socket != nil {
		return nil
	}
	n, err := c.s.at(c.key)
	if err != nil {
		return err
	}
	k, err := n.socket(c.ctx, c.s.cfg)
	if err != nil {
		return err
	}
	k.came = c.stay
	c.socketMu.Lock()
	c.socket = k
	c.socketMu.Unlock()
	return nil
}

// disconnect gives up what is under way, too.
func (c *consumer) disconnect() {
	k := c.socket
	c.socketMu.Lock()
	c.socket = nil
	c.socketMu.Unlock()
	if k != nil {
		_ = k.Close()
	}
	if c.ahead != nil {
		c.unsettled(c.ahead.life, c.ahead.batch)
		c.ahead = nil
	}
}

// do sends a command and waits for its answer.
func (c *consumer) do(words []string) (*answer, error) {
	k := c.socket
	k.words(words...)
	k.end()
	if err := k.send(c.s.cfg.timeout); err != nil {
		return nil, err
	}
	return &k.in, k.in.peek()
}
