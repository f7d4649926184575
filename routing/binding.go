package routing

import "math/bits"

// A place is where a binding leads: one queue or exchange of a table, the same
// pointer as long as it stands.
type place struct {
	name     string
	hash     uint64
	exchange bool
}

func newPlace(name string, exchange bool) *place {
	return &place{name: name, hash: hashOf(name), exchange: exchange}
}

// A binding is a Binding in a table. There are many, so what most bindings of
// an exchange share is in via.
type binding struct {
	key string
	to  *place
	via *via
}

// via is the source and the arguments of a binding.
type via struct {
	from  *place
	args  map[string]any // normal
	canon string         // tells arguments apart; "" without any
	hash  uint64
	match *matcher // what the arguments mean on a headers exchange
}

func newVia(from *place, args map[string]any) *via {
	v := &via{from: from, args: args, hash: from.hash, match: matchAll}
	if len(args) > 0 {
		v.canon = canonical(args)
		v.hash ^= hashOf(v.canon)
		v.match = newMatcher(args)
	}
	return v
}

func (b *binding) data() Binding {
	d := Binding{Exchange: b.via.from.name, Key: b.key, Args: cloned(b.via.args)}
	if b.to.exchange {
		d.ToExchange = b.to.name
	} else {
		d.Queue = b.to.name
	}
	return d
}

// byIdentity files bindings under all of their fields.
type byIdentity struct{}

func (byIdentity) hash(leaf any) uint64 {
	b := leaf.(*binding)
	h := bits.RotateLeft64(hashOf(b.key), 1) ^ bits.RotateLeft64(b.via.hash, 2) ^ b.to.hash
	if b.to.exchange {
		h = ^h
	}
	return h
}

func (byIdentity) same(a, b any) bool {
	x, y := a.(*binding), b.(*binding)
	return x == y || x.key == y.key && x.to.name == y.to.name && x.to.exchange == y.to.exchange &&
		(x.via == y.via || x.via.from.name == y.via.from.name && x.via.canon == y.via.canon)
}
