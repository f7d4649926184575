package testbroker

import (
	"net"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"
)

// A Link is the way to a broker, which a test can cut. Safe for concurrent use.
type Link struct {
	t       testing.TB
	url     string
	address string // of the link
	target  string // of the broker
	wg      sync.WaitGroup

	mu       sync.Mutex
	changed  *sync.Cond // stalled or closed
	listener net.Listener
	conns    map[net.Conn]bool
	refusing bool
	stalled  bool
	delay    time.Duration
	closed   bool
}

// Proxy puts a link before the broker at rawURL, which must name its port. It
// is closed when t ends.
func Proxy(t testing.TB, rawURL string) *Link {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal("testbroker: the URL to put a proxy before is not well formed")
	}
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLink("127.0.0.1:"+strconv.Itoa(ports[0]), u.Host)
	if err != nil {
		t.Fatal(err)
	}
	l.t = t
	u.Host = l.address
	l.url = u.String()
	t.Cleanup(l.close)
	return l
}

// newLink listens on address and leads to target.
func newLink(address, target string) (*Link, error) {
	l := &Link{target: target, address: address, conns: make(map[net.Conn]bool)}
	l.changed = sync.NewCond(&l.mu)
	return l, l.listen()
}

func (l *Link) close() {
	l.mu.Lock()
	l.closed = true
	l.changed.Broadcast()
	if l.listener != nil {
		l.listener.Close()
	}
	l.mu.Unlock()
	l.Cut()
	l.wg.Wait()
}

// URL is the broker's, by way of the link.
func (l *Link) URL() string { return l.url }

// Cut resets every connection that is open now. New ones are taken.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset, not an orderly end
		}
		c.Close()
	}
}

// Refuse makes new connections fail, as if no broker ran there; false ends it.
func (l *Link) Refuse(on bool) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if on == l.refusing || l.closed {
		return
	}
	l.refusing = on
	if on {
		l.listener.Close()
		l.listener = nil
	} else if err := l.listen(); err != nil {
		l.t.Errorf("testbroker: the link cannot take connections again: %v", err)
	}
}

// Stall holds back every byte, in both directions, while connections stay
// open; false lets them pass.
func (l *Link) Stall(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stalled = on
	l.changed.Broadcast()
}

// Delay holds back what is read from either side for d before it is passed on; 0
// ends it.
func (l *Link) Delay(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

// listen is called with mu held, or before there is anyone else.
func (l *Link) listen() error {
	var listener net.Listener
	var err error
	for range 50 {
		if listener, err = net.Listen("tcp", l.address); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	l.listener = listener
	l.wg.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			l.wg.Go(func() { l.serve(near) })
		}
	})
	return nil
}

func (l *Link) serve(near net.Conn) {
	far, err := net.Dial("tcp", l.target)
	if err != nil {
		near.Close()
		return
	}
	l.mu.Lock()
	if l.closed || l.refusing {
		near.Close()
		far.Close()
	}
	l.conns[near], l.conns[far] = true, true
	l.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { l.copy(near, far) })
	wg.Go(func() { l.copy(far, near) })
	wg.Wait()
	l.mu.Lock()
	delete(l.conns, near)
	delete(l.conns, far)
	l.mu.Unlock()
}

// copy ends both connections when one of them ends.
func (l *Link) copy(dst, src net.Conn) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		l.mu.Lock()
		if d := l.delay; d > 0 {
			l.mu.Unlock()
			time.Sleep(d)
			l.mu.Lock()
		}
		for l.stalled && !l.closed {
			l.changed.Wait()
		}
		l.mu.Unlock()
		if _, werr := dst.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}
