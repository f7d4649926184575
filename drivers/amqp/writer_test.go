package amqp

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/internal/nowait"
	"github.com/polymq/polymq/internal/testbroker"
)

// gate is a connection that takes a write when the test lets it.
type gate struct {
	net.Conn
	begun, open, sent chan struct{}
}

func (g *gate) Write(b []byte) (int, error) {
	g.begun <- struct{}{}
	<-g.open
	g.sent <- struct{}{}
	return len(b), nil
}

func (g *gate) Close() error { return nil }

// TestFullWireKeepsItsBuffers: as many bytes as publishers may have waiting are
// gathered again and again without memory being got for them.
func TestFullWireKeepsItsBuffers(t *testing.T) {
	g := &gate{begun: make(chan struct{}), open: make(chan struct{}), sent: make(chan struct{})}
	w := newWire(g)
	frame := make([]byte, 4096)
	// While one buffer is being sent, the other is filled.
	round := func() {
		for left := highWater + len(frame); left > 0; left -= len(frame) {
			if _, err := w.Write(frame); err != nil {
				t.Fatal(err)
			}
		}
		g.open <- struct{}{}
		<-g.sent
		<-g.begun
	}
	if _, err := w.Write(frame); err != nil {
		t.Fatal(err)
	}
	<-g.begun
	for range 4 {
		round()
	}
	if n := testing.AllocsPerRun(20, round); n > 0 {
		t.Errorf("%v allocations a round", n)
	}
	go func() {
		for {
			select {
			case <-g.begun:
			case g.open <- struct{}{}:
			case <-g.sent:
			case <-w.done:
				return
			}
		}
	}()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestUrgentBesideTheRest: what is urgent and what is not, more of it than TCP takes
// at once, arrives in the order in which it was written; and what TCP takes at once
// has left when Write returns.
func TestUrgentBesideTheRest(t *testing.T) {
	c, peer := testbroker.Pair(t)
	w := newWire(newPatient(c, time.Minute))
	defer w.Close()
	w.urgent.Store(true)
	if _, err := w.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	if w.unsent > 0 && nowait.New(c) != nil {
		t.Errorf("%d bytes of a lone byte are left to the wire's goroutine", w.unsent)
	}
	w.mu.Unlock()
	const pieces, size = 2000, maxOffer
	go func() {
		for i := range pieces {
			w.urgent.Store(i%3 > 0)
			if _, err := w.Write(bytes.Repeat([]byte{byte(i)}, size)); err != nil {
				t.Error(err)
				c.Close() // nobody need wait for the rest
			}
		}
	}()
	got := make([]byte, 1+pieces*size)
	if _, err := io.ReadFull(peer, got); err != nil {
		t.Fatal(err)
	}
	for i := range pieces {
		if piece := got[1+i*size:][:size]; bytes.Count(piece, []byte{byte(i)}) != size {
			t.Fatalf("piece %d is not what was written", i)
		}
	}
}

// TestCutUnderTLS: a connection that is cut does not wait for TCP to take TLS's last
// word.
func TestCutUnderTLS(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	server.Close()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		c := tls.Client(newPatient(near, time.Minute), &tls.Config{InsecureSkipVerify: true})
		shaken := make(chan error, 1)
		go func() { shaken <- tls.Server(far, server.TLS).Handshake() }()
		if err := errors.Join(c.Handshake(), <-shaken); err != nil {
			t.Fatal(err)
		}
		w := newWire(c)
		begun := time.Now()
		w.cut()
		if took := time.Since(begun); took > 0 {
			t.Errorf("it took %v", took)
		}
		w.Close()
	})
}
