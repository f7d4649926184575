package routing

// A group is a persistent set of bindings: nil, one *binding, an array of a
// few, filled from its front, or a *hamt of many by identity. Most groups have
// one; arrays keep the others small and few cache lines away.
type group any

func few(g group) []*binding {
	switch g := g.(type) {
	case *[2]*binding:
		return g[:]
	case *[4]*binding:
		return g[:]
	case *[8]*binding:
		return g[:]
	case *[16]*binding:
		return g[:]
	}
	return nil
}

// groupOf is a group of these bindings, which are all different.
func groupOf(bs []*binding) group {
	switch n := len(bs); {
	case n == 0:
		return nil
	case n == 1:
		return bs[0]
	case n <= 2:
		return (*[2]*binding)(bs)
	case n <= 4:
		g := new([4]*binding)
		copy(g[:], bs)
		return g
	case n <= 8:
		g := new([8]*binding)
		copy(g[:], bs)
		return g
	case n <= 16:
		g := new([16]*binding)
		copy(g[:], bs)
		return g
	}
	var h *hamt
	for _, b := range bs {
		h = h.put(byIdentity{}, byIdentity{}.hash(b), b, true)
	}
	return h
}

// groupPut adds b, which g does not hold.
func groupPut(g group, b *binding, own bool) group {
	switch g := g.(type) {
	case nil:
		return b
	case *binding:
		return &[2]*binding{g, b}
	case *hamt:
		return g.put(byIdentity{}, byIdentity{}.hash(b), b, own)
	}
	list := few(g)
	if own && list[len(list)-1] == nil {
		for i := range list {
			if list[i] == nil {
				list[i] = b
				return g
			}
		}
	}
	bs := make([]*binding, 0, len(list)+1)
	for _, e := range list {
		if e != nil {
			bs = append(bs, e)
		}
	}
	return groupOf(append(bs, b))
}

// groupDel removes the binding that is the same as b.
func groupDel(g group, b *binding) group {
	k := byIdentity{}
	switch g := g.(type) {
	case nil:
		return nil
	case *binding:
		if k.same(g, b) {
			return nil
		}
		return g
	case *hamt:
		h := g.del(k, k.hash(b), b)
		if h == nil {
			return nil
		}
		if len(h.slots) == 1 {
			if last, ok := h.slots[0].(*binding); ok {
				return last
			}
		}
		return h
	}
	var bs []*binding
	for _, e := range few(g) {
		if e != nil && !k.same(e, b) {
			bs = append(bs, e)
		}
	}
	return groupOf(bs)
}

// groupFind returns the binding that is the same as b, or nil.
func groupFind(g group, b *binding) *binding {
	k := byIdentity{}
	switch g := g.(type) {
	case *binding:
		if k.same(g, b) {
			return g
		}
	case *hamt:
		found, _ := g.find(k, k.hash(b), b).(*binding)
		return found
	}
	for _, e := range few(g) {
		if e != nil && k.same(e, b) {
			return e
		}
	}
	return nil
}

func groupEach(g group, f func(*binding)) {
	switch g := g.(type) {
	case *binding:
		f(g)
	case *hamt:
		g.each(func(leaf any) { f(leaf.(*binding)) })
	}
	for _, e := range few(g) {
		if e != nil {
			f(e)
		}
	}
}
