package routing

import (
	"math/bits"
	"math/rand/v2"
)

// Keys must not be able to choose where their words are filed.
var wordSeed, lengthSeed = rand.Uint64(), rand.Uint64() | 1<<63

const (
	ones = 0x0101010101010101
	dots = '.' * ones
)

// scan is the length of the first word of a key, which a dot ends, and its hash. It
// reads eight bytes at once, for it is a large part of a match.
func scan(key string) (n int, hash uint64) {
	hash = wordSeed
	for ; len(key)-n >= 8; n += 8 {
		s := key[n : n+8]
		eight := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		// The lowest bit that is set is the first dot's; there may be wrong ones above.
		x := eight ^ dots
		if dot := (x - ones) &^ x & (ones << 7); dot != 0 {
			before := bits.TrailingZeros64(dot) - 7
			n += before / 8
			return n, fold(hash^eight&(1<<before-1), lengthSeed^uint64(n))
		}
		hash = fold(hash^eight, lengthSeed)
	}
	var rest uint64
	for shift := 0; n < len(key) && key[n] != '.'; n++ {
		rest |= uint64(key[n]) << shift
		shift += 8
	}
	return n, fold(hash^rest, lengthSeed^uint64(n))
}

func wordHash(word string) uint64 {
	_, hash := scan(word)
	return hash
}

func fold(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}
