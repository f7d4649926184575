package main

import "testing"

// A deferred close closes what was added after the defer: else the connections of one
// point of a curve stay and take part in the next.
func TestDeferredClose(t *testing.T) {
	closed := 0
	func() {
		var g grower
		defer g.close()
		g.add(func() { closed++ })
		g.add(func() { closed++ })
	}()
	if closed != 2 {
		t.Errorf("%d of 2 closed", closed)
	}
}
