package redis

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/polymq/polymq/driver/emulate"
)

// answer reads raw RESP2 answers, so that a message costs one copy and not a
// string for each of its fields.
type answer struct {
	b      []byte    // what has come
	at     int       // from where on it is to be read
	from   io.Reader // where the rest comes from; nil: that is all
	marked bool
	mark   int // if marked, from here on it is still needed
	err    error
}

var errMalformed = errors.New("malformed answer of Redis")

// serverError is an error in a raw answer.
type serverError string

func (e serverError) Error() string { return string(e) }
func (serverError) RedisError()     {}

var _ goredis.Error = serverError("")

// fill waits for more.
func (a *answer) fill() bool {
	if a.err == nil && a.from == nil {
		a.fail()
	}
	if a.err != nil {
		return false
	}
	used := a.at
	if a.marked {
		used = a.mark
	}
	if used > 0 {
		whole := len(a.b) == cap(a.b) && cap(a.b) < maxBuffer
		rest := a.b[used:]
		switch {
		case whole: // much comes at a time
			a.b = append(make([]byte, 0, 2*cap(a.b)), rest...)
		case cap(a.b) > maxBuffer && len(rest) < minBuffer:
			a.b = append(make([]byte, 0, maxBuffer), rest...)
		default:
			a.b = a.b[:copy(a.b, rest)]
		}
		a.at -= used
		a.mark = 0
	}
	if len(a.b) == cap(a.b) {
		a.b = slices.Grow(a.b, max(minBuffer, len(a.b)))
	}
	n, err := a.from.Read(a.b[len(a.b):cap(a.b)])
	a.b = a.b[:len(a.b)+n]
	if n == 0 && err != nil {
		a.err = err
	}
	return n > 0
}

// take takes n bytes and the end of the line after them.
func (a *answer) take(n int64) []byte {
	for int64(len(a.b)-a.at)-2 < n {
		if !a.fill() {
			return nil
		}
	}
	t := a.b[a.at : a.at+int(n)]
	a.at += int(n) + 2
	return t
}

// next is the type of what comes next, 0 after an error.
func (a *answer) next() byte {
	for a.at == len(a.b) {
		if !a.fill() {
			return 0
		}
	}
	return a.b[a.at]
}

// line takes the next line: its type and the rest of it, which lasts until more is
// taken.
func (a *answer) line() (byte, []byte) {
	i := bytes.IndexByte(a.b[a.at:], '\n')
	for i < 0 {
		if !a.fill() {
			return 0, nil
		}
		i = bytes.IndexByte(a.b[a.at:], '\n')
	}
	if a.err != nil || i < 2 {
		a.fail()
		return 0, nil
	}
	l := a.b[a.at : a.at+i-1]
	a.at += i + 1
	return l[0], l[1:]
}

// peek is the error that an answer consists of, which it takes, or why there is none.
func (a *answer) peek() error {
	if a.next() == '-' {
		if _, text := a.line(); a.err == nil {
			return serverError(text)
		}
	}
	return a.err
}

func (a *answer) fail() {
	if a.err == nil {
		a.err = errMalformed
	}
}

// head takes an integer or the length of an array or string.
func (a *answer) head() (kind byte, n int64) {
	kind, text := a.line()
	if kind == 0 {
		return 0, 0
	}
	digits := text
	negative := len(text) > 0 && text[0] == '-'
	if negative {
		digits = text[1:]
	}
	if len(digits) == 0 || len(digits) > 18 { // no such number comes, and it might not fit
		a.fail()
		return 0, 0
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			a.fail()
			return 0, 0
		}
		n = 10*n + int64(c-'0')
	}
	if negative {
		n = -n
	}
	return kind, n
}

func (a *answer) integer() int64 {
	kind, n := a.head()
	if kind != ':' {
		a.fail()
	}
	return n
}

// maxArray is more elements than we ask for, or an entry has.
const maxArray = 1 << 20

// array is the number of elements that follow; 0 also for nil.
func (a *answer) array() int {
	kind, n := a.head()
	if kind != '*' || n > maxArray || a.from == nil && n > int64(len(a.b)-a.at) {
		a.fail()
		return 0
	}
	return int(max(n, 0))
}

// maxString is what Redis calls too large.
const maxString = 512 << 20

// text takes a string, which lasts until more is taken.
func (a *answer) text() []byte {
	kind, n := a.head()
	if kind != '$' || n < 0 || n > maxString {
		a.fail()
		return nil
	}
	return a.take(n)
}

// skip passes over one element.
func (a *answer) skip() {
	kind, n := a.head()
	switch {
	case kind == '$' && n >= 0 && n <= maxString:
		a.take(n)
	case kind == '$' && n >= 0:
		a.fail()
	case kind == '*':
		for ; n > 0 && a.err == nil; n-- {
			a.skip()
		}
	}
}

// pass passes over an answer; an error is the server's, or why there is none.
func (a *answer) pass() error {
	if err := a.peek(); err != nil {
		return err
	}
	a.skip()
	return a.err
}

const sequenceBits = 22

// sequence is the ID of an entry as a number: no server makes 4 million entries
// in a millisecond.
func sequence(id []byte) (uint64, error) {
	ms, seq, ok := bytes.Cut(id, []byte("-"))
	if !ok {
		return 0, fmt.Errorf("%w: entry ID %.40q", errMalformed, id)
	}
	high, err := strconv.ParseUint(str(ms), 10, 64)
	if err != nil {
		return 0, err
	}
	low, err := strconv.ParseUint(str(seq), 10, 64)
	return high<<sequenceBits | low&(1<<sequenceBits-1), err
}

// entry takes one entry of a stream, of so many bytes. What is no message of ours is
// made of what can be read: an entry must never end a subscription.
func (a *answer) entry(h *hold) (size int) {
	if a.array() != 2 {
		a.fail()
		return 0
	}
	a.marked, a.mark = true, a.at
	a.text()
	n := a.array()
	for range n {
		a.skip()
	}
	a.marked = false
	if a.err != nil {
		return 0
	}
	// One copy of the whole, of which the ID, all names, values and the body are
	// parts.
	own := answer{b: bytes.Clone(a.b[a.mark:a.at])}
	id := own.text()
	h.id = str(id)
	var err error
	if h.Seq, err = sequence(id); err != nil {
		a.err = err
		return 0
	}
	h.Stored = time.UnixMilli(int64(h.Seq >> sequenceBits))
	own.array()
	for range n / 2 {
		name, value := own.text(), own.text()
		if string(name) == bodyField {
			h.Message.Body = value[:len(value):len(value)]
			continue
		}
		// An error: somebody else's field that is not well formed.
		_ = emulate.SetField(&h.Delivery.Delivery, str(name), str(value))
	}
	return a.at - a.mark
}
