package polymq

import (
	"crypto/rand"
	"encoding/binary"
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
	alphabet  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
)

func (x *ids) next() string {
	var random [17]byte         // no more than are needed: they are most of what an ID costs
	_, _ = rand.Read(random[:]) // it never fails
	bits, more := binary.LittleEndian.Uint64(random[:]), binary.LittleEndian.Uint64(random[8:])
	var id [idLength]byte
	for i := range 12 {
		id[i], id[12+i] = alphabet[bits%32], alphabet[more%32]
		bits, more = bits>>5, more>>5
	}
	bits = bits<<8 | uint64(random[16])
	id[24], id[25] = alphabet[bits%32], alphabet[bits>>5%32]
	n := x.text.Len()
	if x.text.Cap()-n < idLength {
		x.text.Reset()
		x.text.Grow(idsAtOnce * idLength)
		n = 0
	}
	x.text.Write(id[:])
	return x.text.String()[n:]
}

var idPool = sync.Pool{New: func() any { return new(ids) }}

func newID() string {
	x := idPool.Get().(*ids)
	defer idPool.Put(x)
	return x.next()
}
