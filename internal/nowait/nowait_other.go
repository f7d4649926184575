//go:build !unix

package nowait

import "net"

// Conn does nothing here.
type Conn struct{}

// New is always nil.
func New(net.Conn) *Conn { return nil }

// Read takes nothing.
func (*Conn) Read([]byte) int { return 0 }

// Write sends nothing.
func (*Conn) Write([]byte) int { return 0 }
