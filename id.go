package polymq

import (
	"crypto/rand"
	"strings"
	"sync"
)

// ids makes IDs of 130 random bits. Random, not counted, and read anew for each:
// what is copied (a forked process, a restored snapshot) must not repeat IDs,
// since a repeated one would be taken for a retry and dropped. Only the memory
// that they lie in is got for many at once.
type ids struct{ text strings.Builder }

const (
	idLength  = 26 // of 5 bits each
	idsAtOnce = 39 // one that is kept keeps 1 KiB
)

func (x *ids) next() string {
	var random [idLength]byte
	_, _ = rand.Read(random[:]) // it never fails
	n := x.text.Len()
	if x.text.Cap()-n < idLength {
		x.text.Reset()
		x.text.Grow(idsAtOnce * idLength)
		n = 0
	}
	for i, b := range random {
		random[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[b%32]
	}
	x.text.Write(random[:])
	return x.text.String()[n:]
}

var idPool = sync.Pool{New: func() any { return new(ids) }}

func newID() string {
	x := idPool.Get().(*ids)
	defer idPool.Put(x)
	return x.next()
}
