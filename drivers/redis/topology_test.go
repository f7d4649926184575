package redis

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
)

// TestTopologyStore: deltas, whole loads, compare-and-set and leases.
func TestTopologyStore(t *testing.T) {
	_, s := dial(t, testbroker.URL(t, "redis"))
	ctx := ctxT(t)
	first, err := s.LoadTopology(ctx, emulate.Version{})
	if err != nil || !first.Full || len(first.Elements) != 0 {
		t.Fatalf("fresh: %+v, %v", first, err)
	}
	data := []byte(`{"v":1,"binding":{}}`)
	v1, err := s.ApplyTopology(ctx, first.Version, []emulate.Element{{Name: "a", Data: data}, {Name: "b", Data: data}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ApplyTopology(ctx, first.Version, []emulate.Element{{Name: "c", Data: data}}); !errors.Is(err, emulate.ErrStale) {
		t.Fatalf("stale: %v", err)
	}
	v2, err := s.ApplyTopology(ctx, v1, []emulate.Element{{Name: "a"}, {Name: "c", Data: data}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		since emulate.Version
		full  bool
		names string
	}{
		{first.Version, false, "a- b+ c+"}, {v1, false, "a- c+"}, {v2, false, ""},
		{emulate.Version{}, true, "b+ c+"}, {emulate.Version{Epoch: "other", N: 1}, true, "b+ c+"},
	} {
		got, err := s.LoadTopology(ctx, c.since)
		if err != nil || got.Full != c.full || got.Version != v2 || names(got.Elements) != c.names {
			t.Errorf("since %v: %+v, %v, want %v %q", c.since, got, err, c.full, c.names)
		}
	}
	if err := s.RenewLease(ctx, "one", v1); !errors.Is(err, emulate.ErrStale) {
		t.Errorf("renewal of an old version: %v", err)
	}
	if err := s.RenewLease(ctx, "one", v2); err != nil {
		t.Fatal(err)
	}
	leases, _, err := s.Leases(ctx)
	if err != nil || len(leases) != 1 || leases[0] != (emulate.Lease{Client: "one", Version: v2}) {
		t.Errorf("leases: %v, %v", leases, err)
	}
	if err := s.EndLease(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	// More changes than the log keeps.
	v := v2
	for i := range 12 {
		var es []emulate.Element
		for j := range emulate.MaxElements {
			es = append(es, emulate.Element{Name: fmt.Sprintf("e.%d", j), Data: fmt.Append(nil, i)})
		}
		if v, err = s.ApplyTopology(ctx, v, es); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.LoadTopology(ctx, v1); err != nil || !got.Full || len(got.Elements) != emulate.MaxElements+2 {
		t.Errorf("after many changes: full %v, %d elements, %v", got.Full, len(got.Elements), err)
	}
	near := emulate.Version{Epoch: v.Epoch, N: v.N - 2}
	if got, err := s.LoadTopology(ctx, near); err != nil || got.Full || len(got.Elements) != emulate.MaxElements {
		t.Errorf("since %v: full %v, %d elements, %v", near, got.Full, len(got.Elements), err)
	}
	if err := s.client.HSet(ctx, s.namespace()+":version", "wire", "2").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.LoadTopology(ctx, v); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a newer version's namespace: %v", err)
	}
}

func names(es []emulate.Element) string {
	var out []string
	for _, e := range es {
		out = append(out, e.Name+map[bool]string{true: "-", false: "+"}[e.Data == nil])
	}
	return strings.Join(out, " ")
}
