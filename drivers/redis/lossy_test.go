package redis

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// lossy is a proxy that passes requests on, and instead of an answer to one
// that contains the word it closes the connection: the server has done what the
// client does not hear of. Or it passes that one on late.
type lossy struct {
	url string
	l   net.Listener
	wg  sync.WaitGroup

	mu    sync.Mutex
	word  []byte
	every int // every n-th such request; 0: none
	seen  int
	lost  int
	late  time.Duration // such requests are passed on later, not lost
	conns map[net.Conn]bool
}

func newLossy(t testing.TB, url string) *lossy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := strings.LastIndexByte(url, '@') + 1
	if at == 0 {
		at = strings.Index(url, "://") + 3
	}
	target, rest, _ := strings.Cut(url[at:], "/")
	p := &lossy{url: url[:at] + l.Addr().String() + "/" + rest, l: l, conns: map[net.Conn]bool{}}
	p.wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(near, target) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

// lose loses the answer to every n-th request with the word, beginning with the
// next; 0 ends it. It returns how many were lost so far.
func (p *lossy) lose(word string, n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.word, p.every, p.seen = []byte(word), n, 0
	return p.lost
}

// loses waits until so many answers more are lost.
func (p *lossy) loses(t testing.TB, n int) {
	t.Helper()
	count := func() int { p.mu.Lock(); defer p.mu.Unlock(); return p.lost }
	before := count()
	until(t, "no answer is lost", func() bool { return count() >= before+n })
}

// hold passes requests with the word on only after a while; 0 ends it.
func (p *lossy) hold(word string, late time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.word, p.every, p.seen, p.late = []byte(word), 1, 0, late
	if late == 0 {
		p.every = 0
	}
}

// hit reports that b is to be held or, where that is for no time, lost.
func (p *lossy) hit(b []byte) (late time.Duration, hit bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.every == 0 || !bytes.Contains(b, p.word) {
		return 0, false
	}
	p.seen++
	if (p.seen-1)%p.every != 0 {
		return 0, false
	}
	p.lost++
	return p.late, true
}

func (p *lossy) serve(near net.Conn, target string) {
	far, err := net.Dial("tcp", target)
	if err != nil {
		near.Close()
		return
	}
	p.mu.Lock()
	p.conns[near], p.conns[far] = true, true
	p.mu.Unlock()
	drop := make(chan struct{})
	p.wg.Go(func() {
		defer near.Close()
		defer far.Close()
		b := make([]byte, 1<<20)
		for {
			n, err := far.Read(b)
			if err != nil {
				return
			}
			select {
			case <-drop:
				return
			default:
			}
			if _, err := near.Write(b[:n]); err != nil {
				return
			}
		}
	})
	b := make([]byte, 1<<20)
	dropped := false
	for {
		n, err := near.Read(b)
		if err != nil {
			if !dropped {
				far.Close()
			}
			return
		}
		if !dropped {
			late, hit := p.hit(b[:n])
			time.Sleep(late)
			if dropped = hit && late == 0; dropped {
				close(drop) // before the server can answer
			}
		}
		if _, err := io.Copy(far, bytes.NewReader(b[:n])); err != nil {
			near.Close()
			return
		}
	}
}
