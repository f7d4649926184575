package routing

// An index holds the bindings that lead from one exchange, laid out for its
// kind. It is persistent: with and without leave it as it was.
type index interface {
	with(b *binding, own bool) index // b is not there yet
	without(b *binding) index        // before any with of the same run
	each(f func(*binding))
	// sealed ends a run of with and without.
	sealed() index
	// match takes the bindings that the message in w matches.
	match(w *walk)
}

func newIndex(x *Exchange) index {
	switch x.Kind {
	case Direct:
		return directIndex{}
	case Fanout:
		return fanoutIndex{}
	case Topic:
		return &topicIndex{}
	case Headers:
		return headersIndex{}
	}
	if rule := ruleOf(x.Kind); rule != nil {
		return ruleIndex{rule, x, nil, new(compiled)}
	}
	return unknownIndex{}
}

// directIndex files bindings under their key.
type directIndex struct{ keys *hamt }

// A cell is the bindings of one key, where there are several.
type cell struct {
	key  string
	here group
}

type byKey struct{}

func keyOf(leaf any) string {
	if c, ok := leaf.(*cell); ok {
		return c.key
	}
	return leaf.(*binding).key
}

func (byKey) hash(leaf any) uint64 { return hashOf(keyOf(leaf)) }
func (byKey) same(a, b any) bool   { return keyOf(a) == keyOf(b) }

func (x directIndex) with(b *binding, own bool) index {
	h := hashOf(b.key)
	var leaf any = b
	switch old := x.keys.find(byKey{}, h, b).(type) {
	case *binding:
		leaf = &cell{b.key, groupPut(old, b, own)}
	case *cell:
		leaf = &cell{b.key, groupPut(old.here, b, own)}
	}
	return directIndex{x.keys.put(byKey{}, h, leaf, own)}
}

func (x directIndex) sealed() index { return x }
func (x directIndex) without(b *binding) index {
	h := hashOf(b.key)
	c, ok := x.keys.find(byKey{}, h, b).(*cell)
	if !ok {
		return directIndex{x.keys.del(byKey{}, h, b)}
	}
	switch g := groupDel(c.here, b).(type) {
	case *binding:
		return directIndex{x.keys.put(byKey{}, h, g, false)}
	default:
		return directIndex{x.keys.put(byKey{}, h, &cell{b.key, g}, false)}
	}
}

func (x directIndex) each(f func(*binding)) {
	x.keys.each(func(leaf any) {
		if c, ok := leaf.(*cell); ok {
			groupEach(c.here, f)
		} else {
			f(leaf.(*binding))
		}
	})
}

func (x directIndex) match(w *walk) {
	for _, key := range w.keys {
		s := x.keys.get(hashOf(key))
		if c, ok := s.(*clash); ok {
			for _, leaf := range c.leaves {
				x.take(w, leaf, key)
			}
		} else if s != nil {
			x.take(w, s, key)
		}
	}
}

func (directIndex) take(w *walk, leaf any, key string) {
	if keyOf(leaf) != key {
		return
	}
	if c, ok := leaf.(*cell); ok {
		w.takeGroup(c.here)
	} else {
		w.take(leaf.(*binding))
	}
}

// fanoutIndex is all bindings.
type fanoutIndex struct{ all group }

func (x fanoutIndex) with(b *binding, own bool) index { return fanoutIndex{groupPut(x.all, b, own)} }
func (x fanoutIndex) sealed() index                   { return x }
func (x fanoutIndex) without(b *binding) index        { return fanoutIndex{groupDel(x.all, b)} }
func (x fanoutIndex) each(f func(*binding))           { groupEach(x.all, f) }
func (x fanoutIndex) match(w *walk)                   { w.takeGroup(x.all) }

// unknownIndex keeps the bindings of a kind that this process does not know.
type unknownIndex struct{ all group }

func (x unknownIndex) with(b *binding, own bool) index { return unknownIndex{groupPut(x.all, b, own)} }
func (x unknownIndex) sealed() index                   { return x }
func (x unknownIndex) without(b *binding) index        { return unknownIndex{groupDel(x.all, b)} }
func (x unknownIndex) each(f func(*binding))           { groupEach(x.all, f) }
func (x unknownIndex) match(w *walk)                   { w.unknown = true }
