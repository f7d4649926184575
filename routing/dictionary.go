package routing

import "strings"

// A dictionary numbers the words of keys, from firstWord on.
type dictionary struct {
	slots []entry // open addressing, a power of two of them; token 0 is empty
	words []string
}

type entry struct{ tag, token uint32 }

func (d *dictionary) find(word string, hash uint64) uint32 {
	mask := uint64(len(d.slots) - 1)
	tag := uint32(hash >> 32)
	for i := hash & mask; len(d.slots) > 0; i = (i + 1) & mask {
		e := &d.slots[i]
		if e.token == 0 {
			return tokenNone
		}
		if e.tag == tag && d.words[e.token-firstWord] == word {
			return e.token
		}
	}
	return tokenNone
}

func (d *dictionary) add(word string) uint32 {
	h := hashOf(word)
	if token := d.find(word, h); token != tokenNone {
		return token
	}
	if 2*len(d.words) >= len(d.slots) {
		d.slots = make([]entry, max(64, 2*len(d.slots)))
		for i, w := range d.words {
			d.file(hashOf(w), firstWord+uint32(i))
		}
	}
	token := firstWord + uint32(len(d.words))
	d.words = append(d.words, word)
	d.file(h, token)
	return token
}

func (d *dictionary) file(hash uint64, token uint32) {
	mask := uint64(len(d.slots) - 1)
	i := hash & mask
	for d.slots[i].token != 0 {
		i = (i + 1) & mask
	}
	d.slots[i] = entry{uint32(hash >> 32), token}
}

// packed is the dictionary with all its words in one string, near each other.
func (d *dictionary) packed() dictionary {
	text := strings.Join(d.words, "")
	words := make([]string, len(d.words))
	for i, w := range d.words {
		words[i], text = text[:len(w)], text[len(w):]
	}
	return dictionary{d.slots, words}
}
