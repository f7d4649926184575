package redis

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

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
		{first.Version, true, "b+ c+"}, {v1, false, "a- c+"}, {v2, false, ""},
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
	v, before := v2, v2
	for i := range 12 {
		var es []emulate.Element
		for j := range emulate.MaxElements {
			es = append(es, emulate.Element{Name: fmt.Sprintf("e.%d", j), Data: fmt.Append(nil, i)})
		}
		before = v
		if v, err = s.ApplyTopology(ctx, v, es); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.LoadTopology(ctx, v1); err != nil || !got.Full || len(got.Elements) != emulate.MaxElements+2 {
		t.Errorf("after many changes: full %v, %d elements, %v", got.Full, len(got.Elements), err)
	}
	if got, err := s.LoadTopology(ctx, before); err != nil || got.Full || len(got.Elements) != emulate.MaxElements {
		t.Errorf("since %v: full %v, %d elements, %v", before, got.Full, len(got.Elements), err)
	}
	if err := s.calls().HSet(ctx, s.namespace()+":version", "wire", "2").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.LoadTopology(ctx, v); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a newer version's namespace: %v", err)
	}
}

// TestVersionIsNotRepeated: a client that saw a version which a restored file or
// a failover took back is not told that it is up to date by what came instead.
func TestVersionIsNotRepeated(t *testing.T) {
	_, s := dial(t, testbroker.URL(t, "redis"))
	ctx := ctxT(t)
	v0, err := s.LoadTopology(ctx, emulate.Version{})
	if err != nil {
		t.Fatal(err)
	}
	data := []byte(`{"v":1,"binding":{}}`)
	v1, err := s.ApplyTopology(ctx, v0.Version, []emulate.Element{{Name: "kept", Data: data}})
	if err != nil {
		t.Fatal(err)
	}
	saved := map[string]string{}
	for _, suffix := range []string{":version", ":topology", ":changes", ":leases"} {
		saved[s.namespace()+suffix] = s.calls().Dump(ctx, s.namespace()+suffix).Val()
	}
	lost, err := s.ApplyTopology(ctx, v1, []emulate.Element{{Name: "lost", Data: data}})
	if err != nil {
		t.Fatal(err)
	}
	for key, dump := range saved {
		if err := s.calls().Del(ctx, key).Err(); err != nil {
			t.Fatal(err)
		}
		if dump != "" {
			if err := s.calls().Restore(ctx, key, 0, dump).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	other, err := s.ApplyTopology(ctx, v1, []emulate.Element{{Name: "other", Data: data}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RenewLease(ctx, "one", lost); !errors.Is(err, emulate.ErrStale) {
		t.Errorf("renewal of a version that was lost: %v (lost %v, now %v)", err, lost, other)
	}
	got, err := s.LoadTopology(ctx, lost)
	if err != nil || !got.Full || got.Version != other || names(got.Elements) != "kept+ other+" && names(got.Elements) != "other+ kept+" {
		t.Errorf("since the lost version: %+v, %v", got, err)
	}
}

// TestFlushed: where leases were taken away under their clients the broker
// counts as just restarted, and where there were none it does not.
func TestFlushed(t *testing.T) {
	_, s := dial(t, testbroker.URL(t, "redis"))
	ctx := ctxT(t)
	const settled = 1500 * time.Millisecond
	for { // the server's own start must not be what is seen
		_, restarted, err := s.Leases(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if restarted > settled {
			break
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("a fresh namespace: restarted %v ago", restarted)
		}
	}
	v, err := s.LoadTopology(ctx, emulate.Version{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RenewLease(ctx, "one", v.Version); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	keys, err := s.calls().Keys(ctx, s.namespace()+":*").Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.calls().Del(ctx, keys...).Err(); err != nil {
		t.Fatal(err)
	}
	if again, err := s.LoadTopology(ctx, v.Version); err != nil || again.Version.Epoch == v.Version.Epoch || !again.Full {
		t.Fatalf("after the flush: %+v, %v", again, err)
	}
	// The server counts whole milliseconds; its own start is further back than the flush.
	if _, restarted, err := s.Leases(ctx); err != nil || restarted < 0 || restarted > time.Since(begin)+time.Millisecond {
		t.Errorf("restarted %v ago, %v, though a client relies on a lease that is gone", restarted, err)
	}
}

func names(es []emulate.Element) string {
	var out []string
	for _, e := range es {
		out = append(out, e.Name+map[bool]string{true: "-", false: "+"}[e.Data == nil])
	}
	return strings.Join(out, " ")
}
