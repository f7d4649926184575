//go:build unix

package amqp

import (
	"net"
	"syscall"
)

// offered writes to a socket what that takes without waiting. nil writes nothing.
type offered struct {
	raw  syscall.RawConn
	send func(fd uintptr) bool // kept, since each would be an allocation
	b    []byte
	n    int
}

func newOffered(c net.Conn) *offered {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	o := &offered{raw: raw}
	o.send = func(fd uintptr) bool {
		o.n, _ = syscall.Write(int(fd), o.b)
		return true // whatever came of it: who waits is Write
	}
	return o
}

func (o *offered) write(b []byte) int {
	if o == nil {
		return 0
	}
	o.b, o.n = b, 0
	err := o.raw.Write(o.send)
	o.b = nil
	if err != nil {
		return 0
	}
	return max(o.n, 0)
}
