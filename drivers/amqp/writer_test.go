package amqp

import (
	"net"
	"testing"
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
