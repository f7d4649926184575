package amqp

import (
	"bufio"
	"encoding/binary"
	"io"
	"strings"
)

// A sieve reads what a broker sends, frame by frame, and takes out of messages'
// headers the fields that amqp091 does not read: it takes them for an attack, and
// ends the connection. The broker would deliver such a message again, on the next
// connection, for ever.
type sieve struct {
	in  *bufio.Reader
	out []byte // read, and not yet asked for
	buf []byte
	err error
}

func newSieve(r io.Reader) *sieve { return &sieve{in: bufio.NewReader(r)} }

const (
	frameHead   = 7 // type, channel, size
	frameHeader = 2 // its type
	// Of a content header, what stands before the properties: class, weight,
	// body size and flags.
	contentHead     = 14
	flagContentType = 1 << 15
	flagEncoding    = 1 << 14
	flagHeaders     = 1 << 13

	// headerUnread names the fields that were taken out.
	headerUnread = "x-unread"
)

func (s *sieve) Read(b []byte) (int, error) {
	if len(s.out) == 0 && s.err == nil {
		s.out, s.err = s.frame()
	}
	n := copy(b, s.out)
	if s.out = s.out[n:]; n == 0 && len(b) > 0 {
		return 0, s.err
	}
	return n, nil
}

// frame is the next frame, sifted; or as much of it as came before the error.
func (s *sieve) frame() ([]byte, error) {
	var head [frameHead]byte
	if n, err := io.ReadFull(s.in, head[:]); err != nil {
		return append(s.buf[:0], head[:n]...), err
	}
	size := int(binary.BigEndian.Uint32(head[3:]))
	if size > frameSize { // no frame of AMQP: whoever asked finds that out
		return append(s.buf[:0], head[:]...), nil
	}
	whole := frameHead + size + 1
	if cap(s.buf) < whole {
		s.buf = make([]byte, whole)
	}
	frame := s.buf[:whole]
	copy(frame, head[:])
	if n, err := io.ReadFull(s.in, frame[frameHead:]); err != nil {
		return frame[:frameHead+n], err
	}
	if head[0] == frameHeader {
		frame = sift(frame)
	}
	return frame, nil
}

// sift is a content header's frame without the fields that are not read.
func sift(frame []byte) []byte {
	payload := fields{rest: frame[frameHead : len(frame)-1]}
	head := payload.take(contentHead)
	if head == nil {
		return frame
	}
	flags := binary.BigEndian.Uint16(head[contentHead-2:])
	for _, flag := range []uint16{flagContentType, flagEncoding} {
		if flags&flag != 0 {
			payload.short()
		}
	}
	if flags&flagHeaders == 0 {
		return frame
	}
	start := len(frame) - 1 - len(payload.rest)
	table := payload.long()
	if table == nil {
		return frame
	}
	kept, unread := readable(table)
	if len(unread) == 0 {
		return frame
	}
	names := strings.Join(unread, ",")
	names = strings.ToValidUTF8(names[:min(len(names), 1<<10)], "")
	kept = append(kept, byte(len(headerUnread)))
	kept = append(append(kept, headerUnread...), 'S')
	kept = append(binary.BigEndian.AppendUint32(kept, uint32(len(names))), names...)

	out := append([]byte(nil), frame[:start]...)
	out = append(binary.BigEndian.AppendUint32(out, uint32(len(kept))), kept...)
	out = append(append(out, payload.rest...), frame[len(frame)-1])
	binary.BigEndian.PutUint32(out[3:], uint32(len(out)-frameHead-1))
	return out
}

// readable is a table without the fields that amqp091 does not read, and their
// names.
func readable(table []byte) (kept []byte, unread []string) {
	in, n := fields{rest: table}, 0
	for len(in.rest) > 0 {
		all := in.rest
		name := in.short()
		ok := in.value(1)
		if in.broken { // no table of the broker's: nothing behind it can be told apart
			return kept, append(unread, string(name))
		}
		if n++; !ok || n >= maxElements { // room for headerUnread
			unread = append(unread, string(name))
			continue
		}
		kept = append(kept, all[:len(all)-len(in.rest)]...)
	}
	return kept, unread
}

// fields takes AMQP's field values off a text.
type fields struct {
	rest   []byte
	broken bool
}

func (f *fields) take(n int) []byte {
	if n < 0 || n > len(f.rest) {
		f.rest, f.broken = nil, true
		return nil
	}
	b := f.rest[:n:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) short() []byte {
	n := f.take(1)
	if n == nil {
		return nil
	}
	return f.take(int(n[0]))
}

func (f *fields) long() []byte {
	n := f.take(4)
	if n == nil {
		return nil
	}
	return f.take(int(binary.BigEndian.Uint32(n)))
}

// sizes are the lengths of values by their type; others have their own.
var sizes = map[byte]int{'t': 1, 'b': 1, 'B': 1, 's': 2, 'u': 2, 'I': 4, 'i': 4, 'f': 4, 'l': 8, 'd': 8, 'T': 8, 'D': 5, 'V': 0}

// value takes one value off, and reports whether it is read; depth is that of a
// list or table that it would be.
func (f *fields) value(depth int) bool {
	kind := f.take(1)
	if kind == nil {
		return false
	}
	if n, ok := sizes[kind[0]]; ok {
		f.take(n)
		return !f.broken
	}
	var inner fields
	switch kind[0] {
	case 'S', 'x':
		f.long()
		return !f.broken
	case 'A', 'F':
		inner.rest = f.long()
	default:
		f.rest, f.broken = nil, true
	}
	if f.broken || depth > maxNesting {
		return false
	}
	for n := 0; len(inner.rest) > 0; n++ {
		if kind[0] == 'F' {
			inner.short()
		}
		if n == maxElements || !inner.value(depth+1) {
			return false
		}
	}
	return true
}
