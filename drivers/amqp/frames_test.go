package amqp

import (
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// Methods of the broker, class and number.
const (
	basicCancel = 60<<16 | 30
	basicAck    = 60<<16 | 80
	basicNack   = 60<<16 | 120
)

// throughFrames is the URL of a broker each of whose frames pass may change, or keep
// back; it is told the method, 0 of a frame that is none.
func throughFrames(t *testing.T, broker string, pass func(method uint32, frame []byte) bool) string {
	t.Helper()
	u, err := url.Parse(broker)
	check(t, err)
	target := u.Host
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	u.Host = listener.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				near.Close()
				continue
			}
			wg.Go(func() {
				io.Copy(far, near)
				far.Close()
			})
			wg.Go(func() {
				copyFrames(near, far, pass)
				near.Close()
			})
		}
	})
	t.Cleanup(func() { listener.Close(); wg.Wait() })
	return u.String()
}

func copyFrames(to io.Writer, from io.Reader, pass func(method uint32, frame []byte) bool) {
	const frameMethod = 1
	for {
		frame := make([]byte, frameHead)
		if _, err := io.ReadFull(from, frame); err != nil {
			return
		}
		frame = append(frame, make([]byte, binary.BigEndian.Uint32(frame[3:])+1)...)
		if _, err := io.ReadFull(from, frame[frameHead:]); err != nil {
			return
		}
		method := uint32(0)
		if frame[0] == frameMethod {
			method = binary.BigEndian.Uint32(frame[frameHead:])
		}
		if !pass(method, frame) {
			continue
		}
		if _, err := to.Write(frame); err != nil {
			return
		}
	}
}
