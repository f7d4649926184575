package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
)

func load(t testing.TB, s *store, since emulate.Version) emulate.Changes {
	t.Helper()
	c, err := s.LoadTopology(within(t), since)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func apply(t testing.TB, s *store, at emulate.Version, elements ...emulate.Element) emulate.Version {
	t.Helper()
	v, err := s.ApplyTopology(within(t), at, elements)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func element(i int) emulate.Element {
	return emulate.Element{Name: fmt.Sprintf("b.x%d", i), Data: fmt.Appendf(nil, `{"key":"%d"}`, i)}
}

func TestTopologyChanges(t *testing.T) {
	s := openRaw(t, testbroker.URL(t, "nats"))
	empty := load(t, s, emulate.Version{})
	if !empty.Full || empty.Version.Epoch == "" || len(empty.Elements) != 0 {
		t.Fatalf("a new namespace: %+v", empty)
	}
	v1 := apply(t, s, empty.Version, element(1), element(2))
	v2 := apply(t, s, v1, element(3), emulate.Element{Name: "b.x1"})
	if c := load(t, s, v2); c.Full || len(c.Elements) != 0 || c.Version != v2 {
		t.Fatalf("since the current version: %+v", c)
	}
	load(t, s, emulate.Version{}) // knows v2 now
	v3 := apply(t, s, v2, element(4))
	s.topology.confirmed(v1, time.Now(), time.Time{}) // as one who has routed by v1 until now
	c := load(t, s, v1)
	got := map[string]bool{}
	for _, e := range c.Elements {
		got[e.Name] = e.Data != nil
	}
	if c.Full || c.Version != v3 || len(got) != 3 || !got["b.x3"] || !got["b.x4"] || got["b.x1"] {
		t.Fatalf("since %v: %+v", v1, c)
	}
	if _, removed := got["b.x1"]; !removed {
		t.Fatal("the removal of b.x1 is not among the changes")
	}
	full := load(t, s, emulate.Version{})
	if !full.Full || len(full.Elements) != 3 || full.Version != v3 {
		t.Fatalf("all: %+v", full)
	}
	if old := load(t, s, emulate.Version{Epoch: "other", N: v3.N}); !old.Full {
		t.Fatalf("since another epoch: %+v", old)
	}
	// A version that this process has not seen for long may lack tombstones.
	s.topology.confirmed(v1, time.Now().Add(-deltaAge), time.Time{})
	if old := load(t, s, v1); !old.Full {
		t.Fatalf("since an old version: %+v", old)
	}
}

// TestTopologySinceBeforeOwnChange: whoever hears of this process's own change
// before its copy has it reads what changed, and not all that stands.
func TestTopologySinceBeforeOwnChange(t *testing.T) {
	s := openRaw(t, testbroker.URL(t, "nats"))
	v1 := apply(t, s, load(t, s, emulate.Version{}).Version, element(1))
	v2 := apply(t, s, v1, element(2))
	v3 := apply(t, s, v2, element(3))
	if c := load(t, s, v1); c.Full || len(c.Elements) != 2 || c.Version != v3 {
		t.Errorf("since a version before two of its own: %+v", c)
	}
	s.topology.reconnected() // the server may have lost versions
	if c := load(t, s, v1); !c.Full {
		t.Errorf("after the connection was lost: %+v", c)
	}
	if c := load(t, s, v2); !c.Full {
		t.Errorf("since a version seen before the connection was lost: %+v", c)
	}
	if c := load(t, s, v3); c.Full {
		t.Errorf("since the version seen after it: %+v", c)
	}
}

func TestTopologyOfAnotherEpoch(t *testing.T) {
	s := openRaw(t, testbroker.URL(t, "nats"))
	v := apply(t, s, load(t, s, emulate.Version{}).Version, element(1))
	if err := s.js.DeleteStream(within(t), s.names.topologyStream()); err != nil {
		t.Fatal(err)
	}
	if err := s.RenewLease(within(t), "me", v); !errors.Is(err, emulate.ErrStale) {
		t.Fatalf("a renewal in a namespace begun anew: %v", err)
	}
	if _, err := s.ApplyTopology(within(t), v, []emulate.Element{element(2)}); !errors.Is(err, emulate.ErrStale) {
		t.Fatalf("a change of a namespace begun anew: %v", err)
	}
	if c := load(t, s, v); !c.Full || len(c.Elements) != 0 || c.Version.Epoch == v.Epoch {
		t.Fatalf("a namespace begun anew: %+v", c)
	}
}

// TestTopologyRace lets clients change the topology and renew leases at once.
// Each change must follow the one before it, and no renewal may be accepted
// for a version that had a successor when the renewal was sent.
func TestTopologyRace(t *testing.T) {
	url := testbroker.URL(t, "nats")
	var newest atomic.Uint64 // sequence of the newest version known to be applied
	var applied, stale, renewed atomic.Int64
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 3 {
		s := openRaw(t, url)
		wg.Go(func() {
			v := load(t, s, emulate.Version{}).Version
			for ctx.Err() == nil {
				next, err := s.ApplyTopology(t.Context(), v, []emulate.Element{element(i), element(100 + i)})
				switch {
				case err == nil:
					if next.N <= v.N {
						t.Errorf("version %d after %d", next.N, v.N)
					}
					applied.Add(1)
					for old := newest.Load(); next.N > old && !newest.CompareAndSwap(old, next.N); old = newest.Load() {
					}
					v = next
				case errors.Is(err, emulate.ErrStale):
					stale.Add(1)
					v = load(t, s, v).Version
				default:
					t.Error(err)
					return
				}
			}
		})
		r := openRaw(t, url)
		wg.Go(func() {
			v := load(t, r, emulate.Version{}).Version
			for ctx.Err() == nil {
				before := newest.Load()
				err := r.RenewLease(t.Context(), fmt.Sprintf("client-%d", i), v)
				switch {
				case err == nil:
					renewed.Add(1)
					if v.N < before {
						t.Errorf("a lease on %d was renewed after %d was current", v.N, before)
					}
				case errors.Is(err, emulate.ErrStale):
					v = load(t, r, v).Version
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	for began := time.Now(); time.Since(began) < 3*time.Second || applied.Load() == 0 || stale.Load() == 0 || renewed.Load() == 0; {
		if wait(ctx, 10*time.Millisecond) != nil {
			break
		}
	}
	cancel()
	wg.Wait()
	t.Logf("%d changes, %d lost the race, %d renewals", applied.Load(), stale.Load(), renewed.Load())
	if applied.Load() == 0 || stale.Load() == 0 || renewed.Load() == 0 {
		t.Error("the race did not take place")
	}
}

func TestLeases(t *testing.T) {
	url := testbroker.URL(t, "nats")
	a, b := openRaw(t, url), openRaw(t, url)
	v := apply(t, a, load(t, a, emulate.Version{}).Version, element(1))
	for i, s := range []*store{a, b} {
		if err := s.RenewLease(within(t), fmt.Sprintf("client %d.*>", i), v); err != nil {
			t.Fatal(err)
		}
	}
	v2 := apply(t, a, v, element(2))
	if err := a.RenewLease(within(t), "client 0.*>", v); !errors.Is(err, emulate.ErrStale) {
		t.Fatalf("renewing by an old version: %v", err)
	}
	if err := a.RenewLease(within(t), "client 0.*>", v2); err != nil {
		t.Fatal(err)
	}
	leases, restarted, err := b.Leases(within(t))
	if err != nil || restarted >= 0 {
		t.Fatal(restarted, err)
	}
	want := map[emulate.Lease]bool{{Client: "client 0.*>", Version: v2}: true, {Client: "client 1.*>", Version: v}: true}
	if len(leases) != 2 || !want[leases[0]] || !want[leases[1]] {
		t.Fatalf("leases %+v", leases)
	}
	for range 2 {
		if err := b.EndLease(within(t), "client 1.*>"); err != nil {
			t.Fatal(err)
		}
	}
	if leases, _, err := a.Leases(within(t)); err != nil || len(leases) != 1 {
		t.Fatalf("after one ended: %+v, %v", leases, err)
	}
}

func TestWatchTopology(t *testing.T) {
	url := testbroker.URL(t, "nats")
	a, b := openRaw(t, url), openRaw(t, url)
	v := load(t, a, emulate.Version{}).Version
	heard := make(chan struct{}, 100)
	if err := b.WatchTopology(within(t), func(bool) { heard <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	v = apply(t, a, v, element(1))
	select {
	case <-heard:
	case <-within(t).Done():
		t.Fatal("nothing was heard of the change")
	}
	if c := load(t, b, emulate.Version{}); c.Version != v {
		t.Fatalf("heard of %v, and read %v", v, c.Version)
	}
}

func TestLargeTopology(t *testing.T) {
	s := openRaw(t, testbroker.URL(t, "nats"))
	v := load(t, s, emulate.Version{}).Version
	const n = 20_000
	for i := 0; i < n; i += emulate.MaxElements {
		var es []emulate.Element
		for j := range emulate.MaxElements {
			es = append(es, element(i+j))
		}
		v = apply(t, s, v, es...)
	}
	began := time.Now()
	c := load(t, s, emulate.Version{})
	t.Logf("%d elements read in %v", len(c.Elements), time.Since(began))
	if len(c.Elements) != n || c.Version != v {
		t.Fatalf("%d elements at %v, want %d at %v", len(c.Elements), c.Version, n, v)
	}
}

// TestReadBeforeReconnect: what was read before the connection was lost does not tell
// that the server still has it.
func TestReadBeforeReconnect(t *testing.T) {
	var top topology
	v, stamp := emulate.Version{Epoch: "e", N: 1}, time.Now()
	top.reconnected()
	top.confirmed(v, top.back.Add(-time.Second), stamp)
	if !top.recheck || top.delta(v) || top.known != v {
		t.Errorf("an old answer: %+v", &top)
	}
	top.confirmed(v, top.back.Add(time.Second), stamp)
	if top.recheck || !top.delta(v) {
		t.Errorf("a new answer: %+v", &top)
	}
}
