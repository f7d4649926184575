package nats

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
)

// TestSmallChanges makes many small changes, which lie in the version's message
// or in the stream. Whoever reads, from the start or from any version, sees the
// same as who made them.
func TestSmallChanges(t *testing.T) {
	url := testbroker.URL(t, "nats")
	s, fresh := openRaw(t, url), openRaw(t, url)
	readers := make([]*store, 4)
	seen := make([]map[string]string, len(readers))
	at := make([]emulate.Version, len(readers))
	for i := range readers {
		readers[i], seen[i] = openRaw(t, url), map[string]string{}
	}
	follow := func(s *store, since emulate.Version, have map[string]string) emulate.Version {
		c := load(t, s, since)
		if c.Full {
			clear(have)
		}
		for _, e := range c.Elements {
			if e.Data == nil {
				delete(have, e.Name)
			} else {
				have[e.Name] = string(e.Data)
			}
		}
		return c.Version
	}
	want := map[string]string{}
	v := load(t, s, emulate.Version{}).Version
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 600 {
		var es []emulate.Element
		for range 1 + rng.IntN(3)*rng.IntN(2) {
			e := emulate.Element{Name: fmt.Sprintf("b.x%d", rng.IntN(120)*10+len(es))}
			if rng.IntN(3) > 0 {
				e.Data = fmt.Appendf(nil, `{"key":"<%d>%s"}`, i, bytes.Repeat([]byte("k"), rng.IntN(600)))
				want[e.Name] = string(e.Data)
			} else {
				delete(want, e.Name)
			}
			es = append(es, e)
		}
		by := s
		if i%50 == 0 {
			by = fresh // who does not know what the version's message holds
		}
		v = apply(t, by, v, es...)
		// Some read each version, others skip many.
		for r := range readers {
			if rng.IntN(1+r*r*20) > 0 {
				continue
			}
			if at[r] = follow(readers[r], at[r], seen[r]); at[r] != v || !maps.Equal(seen[r], want) {
				t.Fatalf("change %d: reader %d sees %d elements at %v, want %d at %v", i, r, len(seen[r]), at[r], len(want), v)
			}
		}
	}
	have := map[string]string{}
	if follow(openRaw(t, url), emulate.Version{}, have) != v || !maps.Equal(have, want) {
		t.Fatalf("%d elements in the end, want %d", len(have), len(want))
	}
}
