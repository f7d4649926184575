//go:build !unix

package amqp

import "net"

// offered writes nothing here: all goes through the wire's goroutine.
type offered struct{}

func newOffered(net.Conn) *offered { return nil }

func (*offered) write([]byte) int { return 0 }
