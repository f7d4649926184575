//go:build unix

package nowait

import (
	"net"
	"syscall"
)

// Conn reads and writes without waiting. nil does neither. It is for one reader and
// one writer at a time, and heeds the connection's deadlines.
type Conn struct {
	raw  syscall.RawConn
	r, w side
}

// side is a direction.
type side struct {
	b  []byte
	n  int
	do func(fd uintptr) bool // kept, since each would be an allocation
}

// New is nil where that cannot be had.
func New(c net.Conn) *Conn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	n := &Conn{raw: raw}
	// true: whatever came of it; who waits is the connection.
	n.r.do = func(fd uintptr) bool {
		n.r.n, _ = syscall.Read(int(fd), n.r.b)
		return true
	}
	n.w.do = func(fd uintptr) bool {
		n.w.n, _ = syscall.Write(int(fd), n.w.b)
		return true
	}
	return n
}

// Read takes what is there, and says how much that is.
func (c *Conn) Read(b []byte) int {
	if c == nil {
		return 0
	}
	return c.r.run(c.raw.Read, b)
}

// Write sends what there is room for, and says how much that was.
func (c *Conn) Write(b []byte) int {
	if c == nil {
		return 0
	}
	return c.w.run(c.raw.Write, b)
}

func (s *side) run(on func(func(uintptr) bool) error, b []byte) int {
	s.b, s.n = b, 0
	err := on(s.do)
	s.b = nil
	if err != nil {
		return 0
	}
	return max(s.n, 0)
}
