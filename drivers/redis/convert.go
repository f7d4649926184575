package redis

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/polymq/polymq/driver/emulate"
)

// answer reads a raw RESP2 answer, so that a message costs one copy and not a
// string for each of its fields.
type answer struct {
	b   []byte
	err error
}

var errMalformed = errors.New("malformed answer of Redis")

// serverError is an error in a raw answer.
type serverError string

func (e serverError) Error() string { return string(e) }
func (serverError) RedisError()     {}

var _ goredis.Error = serverError("")

// line takes the next line: its type and the rest of it.
func (a *answer) line() (byte, []byte) {
	i := bytes.IndexByte(a.b, '\n')
	if a.err != nil || i < 2 {
		a.fail()
		return 0, nil
	}
	kind, text := a.b[0], a.b[1:i-1]
	a.b = a.b[i+1:]
	if kind == '-' {
		a.err = serverError(text)
		return 0, nil
	}
	return kind, text
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

// array is the number of elements that follow; 0 also for nil.
func (a *answer) array() int {
	kind, n := a.head()
	if kind != '*' || n > int64(len(a.b)) {
		a.fail()
		return 0
	}
	return int(max(n, 0))
}

func (a *answer) text() []byte {
	kind, n := a.head()
	if kind != '$' || n < 0 || n > int64(len(a.b))-2 {
		a.fail()
		return nil
	}
	t := a.b[:n]
	a.b = a.b[n+2:]
	return t
}

// skip passes over one element.
func (a *answer) skip() {
	kind, n := a.head()
	switch {
	case kind == '$' && n >= 0 && n <= int64(len(a.b))-2:
		a.b = a.b[n+2:]
	case kind == '$' && n >= 0:
		a.fail()
	case kind == '*':
		for ; n > 0 && a.err == nil; n-- {
			a.skip()
		}
	}
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

// entry takes one entry of a stream. What is no message of ours is made of what
// can be read: an entry must never end a subscription.
func (a *answer) entry(h *hold) {
	if a.array() != 2 {
		a.fail()
		return
	}
	start := a.b
	a.text()
	n := a.array()
	for range n {
		a.skip()
	}
	if a.err != nil {
		return
	}
	// One copy of the whole, of which the ID, all names, values and the body are
	// parts.
	own := answer{b: bytes.Clone(start[:len(start)-len(a.b)])}
	id := own.text()
	h.id = str(id)
	var err error
	if h.Seq, err = sequence(id); err != nil {
		a.err = err
		return
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
}
