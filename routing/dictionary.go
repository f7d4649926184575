package routing

// A dictionary numbers the words of keys, from firstWord on.
type dictionary struct {
	slots []entry // open addressing, a power of two of them; token 0 is empty
	text  []byte  // the words, one after the other
	words uint32
}

// An entry is a word: a part of its hash, its number, and where its text is.
type entry struct{ tag, token, start, end uint32 }

// find returns the number of a word, tokenNone where it is not there.
func (d *dictionary) find(word string, hash uint64) uint32 {
	mask := uint64(len(d.slots) - 1)
	tag := uint32(hash >> 32)
	for i := hash & mask; len(d.slots) > 0; i = (i + 1) & mask {
		e := &d.slots[i]
		if e.token == tokenNone || e.tag == tag && string(d.text[e.start:e.end]) == word {
			return e.token
		}
	}
	return tokenNone
}

func (d *dictionary) add(word string) uint32 {
	h := wordHash(word)
	if token := d.find(word, h); token != tokenNone {
		return token
	}
	if 3*int(d.words) >= 2*len(d.slots) {
		old := d.slots
		d.slots = make([]entry, max(16, 2*len(old)))
		for _, e := range old {
			if e.token != tokenNone {
				d.file(wordHash(string(d.text[e.start:e.end])), e)
			}
		}
	}
	start := uint32(len(d.text))
	d.text = append(d.text, word...)
	e := entry{uint32(h >> 32), firstWord + d.words, start, uint32(len(d.text))}
	d.words++
	d.file(h, e)
	return e.token
}

func (d *dictionary) file(hash uint64, e entry) {
	mask := uint64(len(d.slots) - 1)
	i := hash & mask
	for d.slots[i].token != tokenNone {
		i = (i + 1) & mask
	}
	d.slots[i] = e
}
