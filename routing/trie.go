package routing

import "strings"

// The trie of changes: a slot is nil, a *binding, the only one below that
// point, whatever the rest of its key; or a *level.

// A level is what stands below one prefix of binding keys.
type level struct {
	word string // the last of the prefix, where it is a literal
	here group  // bindings whose key ends here
	star any    // slot below *
	tail any    // slot below #
	kids *hamt  // slots below literals, by word
}

// byWord files slots under the literal at one depth of their key.
type byWord int

func (d byWord) word(leaf any) string {
	if l, ok := leaf.(*level); ok {
		return l.word
	}
	word, _ := wordAt(leaf.(*binding).key, int(d))
	return word
}

func (d byWord) hash(leaf any) uint64 { return hashOf(d.word(leaf)) }
func (d byWord) same(a, b any) bool   { return d.word(a) == d.word(b) }

// wordAt returns the word at that depth of a key, and whether there is one. An
// empty key has none, and else empty words count.
func wordAt(key string, depth int) (string, bool) {
	if key == "" {
		return "", false
	}
	for ; depth > 0; depth-- {
		i := strings.IndexByte(key, '.')
		if i < 0 {
			return "", false
		}
		key = key[i+1:]
	}
	if i := strings.IndexByte(key, '.'); i >= 0 {
		key = key[:i]
	}
	return key, true
}

func slotPut(slot any, b *binding, depth int, word string) any {
	switch s := slot.(type) {
	case *binding:
		l := &level{word: word}
		l.put(s, depth)
		l.put(b, depth)
		return l
	case *level:
		l := *s
		l.put(b, depth)
		return &l
	}
	return b
}

// put changes l.
func (l *level) put(b *binding, depth int) {
	word, ok := wordAt(b.key, depth)
	switch {
	case !ok:
		l.here = groupPut(l.here, b, false)
	case word == "*":
		l.star = slotPut(l.star, b, depth+1, "")
	case word == "#":
		l.tail = slotPut(l.tail, b, depth+1, "")
	default:
		k, h := byWord(depth), hashOf(word)
		l.kids = l.kids.put(k, h, slotPut(l.kids.find(k, h, b), b, depth+1, word), false)
	}
}

func slotDel(slot any, b *binding, depth int) any {
	switch s := slot.(type) {
	case *binding:
		if (byIdentity{}).same(s, b) {
			return nil
		}
	case *level:
		l := *s
		word, ok := wordAt(b.key, depth)
		switch {
		case !ok:
			l.here = groupDel(l.here, b)
		case word == "*":
			l.star = slotDel(l.star, b, depth+1)
		case word == "#":
			l.tail = slotDel(l.tail, b, depth+1)
		default:
			k, h := byWord(depth), hashOf(word)
			old := l.kids.find(k, h, b)
			if old == nil {
				return s
			}
			if left := slotDel(old, b, depth+1); left == nil {
				l.kids = l.kids.del(k, h, b)
			} else {
				l.kids = l.kids.put(k, h, left, false)
			}
		}
		return l.collapsed()
	}
	return slot
}

// collapsed is l as a slot: where one binding is left below it, that binding.
func (l *level) collapsed() any {
	var only any
	if l.kids != nil {
		if len(l.kids.slots) != 1 {
			return l
		}
		only = l.kids.slots[0]
	}
	for _, s := range [...]any{l.here, l.star, l.tail} {
		if s == nil {
			continue
		}
		if only != nil {
			return l
		}
		only = s
	}
	if b, ok := only.(*binding); ok {
		return b
	}
	if only == nil {
		return nil
	}
	return l
}

func slotEach(slot any, f func(*binding)) {
	switch s := slot.(type) {
	case *binding:
		f(s)
	case *level:
		groupEach(s.here, f)
		slotEach(s.star, f)
		slotEach(s.tail, f)
		s.kids.each(func(leaf any) { slotEach(leaf, f) })
	}
}

// slot takes what stands below a slot and matches the words from i on.
func (w *walk) slot(slot any, i int) {
	switch s := slot.(type) {
	case *binding:
		if topicMatch(s.key, w.words) {
			w.take(s)
		}
	case *level:
		w.level(s, i)
	}
}

func (w *walk) level(l *level, i int) {
	switch s := l.tail.(type) {
	case *binding:
		w.slot(s, i)
	case *level:
		if s.star == nil && s.tail == nil && s.kids == nil {
			w.takeGroup(s.here)
			break
		}
		for j := i; j <= len(w.words); j++ {
			w.level(s, j)
		}
	}
	if i == len(w.words) {
		if l.here != nil {
			w.takeGroup(l.here)
		}
		return
	}
	if l.star != nil {
		w.slot(l.star, i+1)
	}
	if l.kids == nil {
		return
	}
	word := &w.words[i]
	switch s := l.kids.get(word.hash).(type) {
	case *binding:
		w.slot(s, i+1)
	case *level:
		if s.word == word.text {
			w.level(s, i+1)
		}
	case *clash:
		for _, leaf := range s.leaves {
			if byWord(i).word(leaf) == word.text {
				w.slot(leaf, i+1)
			}
		}
	}
}

// topicMatch compares a whole binding key with the words of a routing key.
func topicMatch(key string, words []word) bool {
	if key == "" {
		return len(words) == 0
	}
	return wordsMatch(key, words)
}

// wordsMatch is topicMatch for the rest of a key, which has one word at least.
func wordsMatch(key string, words []word) bool {
	for {
		end := strings.IndexByte(key, '.')
		head := key
		if end >= 0 {
			head = key[:end]
		}
		if head == "#" {
			if end < 0 {
				return true
			}
			for i := range len(words) + 1 {
				if wordsMatch(key[end+1:], words[i:]) {
					return true
				}
			}
			return false
		}
		if len(words) == 0 || head != "*" && head != words[0].text {
			return false
		}
		words = words[1:]
		if end < 0 {
			return len(words) == 0
		}
		key = key[end+1:]
	}
}
