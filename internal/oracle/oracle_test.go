package oracle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/mem"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
	"github.com/polymq/polymq/internal/testbroker"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

const (
	// scripts is how many make test plays.
	scripts = 500
	workers = 12
	// shrinking is how long a script that failed is made smaller.
	shrinking = 45 * time.Second
)

// usual is how patient a run is with machines that are busy.
var usual = pace{quiet: 25 * time.Millisecond, patience: 20 * time.Second}

// brisk is for shrinking, where most runs show a difference.
var brisk = pace{quiet: 50 * time.Millisecond, patience: 4 * time.Second}

// setting is the list in an environment variable; nil where it is not set.
func setting(name string) []string {
	if v := os.Getenv(name); v != "" {
		return strings.Split(v, ",")
	}
	return nil
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// openWorker connects to fresh namespaces.
func openWorker(t *testing.T, reference string, backends []string) *worker {
	t.Helper()
	w, err := newWorker(t.Context(), reference, func(scheme string) string { return testbroker.URL(t, scheme) }, backends)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := w.close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return w
}

func openWorkers(t *testing.T, n int, backends []string) []*worker {
	t.Helper()
	ws := make([]*worker, n)
	reference := testbroker.URL(t, "amqp")
	for i := range ws {
		ws[i] = openWorker(t, reference, backends)
	}
	return ws
}

// TestOracle plays random scripts: ORACLE_SCRIPTS of them, or as many as fit
// into ORACLE_SECONDS, from the seed ORACLE_SEED on. ORACLE_THEMES and
// ORACLE_BACKENDS select, ORACLE_WORKERS says how many at a time.
func TestOracle(t *testing.T) {
	limit := number(t, "ORACLE_SCRIPTS", scripts)
	seed := number(t, "ORACLE_SEED", 1)
	var end time.Time
	if seconds := number(t, "ORACLE_SECONDS", 0); seconds > 0 {
		end = time.Now().Add(time.Duration(seconds) * time.Second)
		limit = 1 << 40
		seed = number(t, "ORACLE_SEED", uint64(time.Now().UnixNano()>>20))
	}
	backends := setting("ORACLE_BACKENDS")
	if backends == nil {
		backends = Backends
	}
	all := newTally()
	var next, played, barren atomic.Int64
	var failures failures
	began := time.Now()
	var wg sync.WaitGroup
	for _, w := range openWorkers(t, int(min(number(t, "ORACLE_WORKERS", workers), limit)), backends) {
		o := Options{Themes: setting("ORACLE_THEMES"), Version: w.raw.version}
		wg.Go(func() {
			for !t.Failed() || failures.few() {
				n := next.Add(1) - 1
				if uint64(n) >= limit || !end.IsZero() && time.Now().After(end) {
					return
				}
				s, about := Generate(seed+uint64(n), o, all)
				began := time.Now()
				record, found, err := w.check(t.Context(), s, backends, usual, all)
				if errors.Is(err, errRefused) {
					all.add("amqp refuses "+strings.TrimPrefix(err.Error(), errRefused.Error()+": "), 1)
					continue
				}
				if err != nil {
					t.Errorf("seed %d, %s: %v", seed+uint64(n), about, err)
					failures.add()
					continue
				}
				played.Add(1)
				all.add("ms all", int(time.Since(began).Milliseconds()))
				if count(all, s, record) == 0 {
					barren.Add(1)
				}
				for i, f := range found {
					if failures.add() && i == 0 {
						t.Error(w.report(t.Context(), s, record, f, seed+uint64(n), about))
					} else {
						t.Errorf("seed %d, %s, on %s: %v", seed+uint64(n), about, f.Backend, f.Difference)
					}
				}
			}
		})
	}
	wg.Wait()
	fmt.Printf("%d scripts from seed %d in %v, %d %s\n", played.Load(), seed, time.Since(began).Round(time.Second), all.of(unsteady), unsteady)
	for _, b := range backends {
		for _, f := range driver.AllFeatures {
			if n := all.of(refused(b, string(f))); n > 0 {
				t.Errorf("%d scripts were not played: %s", n, refused(b, string(f)))
			}
		}
	}
	for _, k := range []string{"ms all", "ms amqp", "ms mem", "ms nats", "ms redis"} {
		fmt.Println(k, all.of(k)/max(1, int(played.Load())))
	}
	printCounts(os.Stdout, all)
	fmt.Println("known differences:")
	printKnown(os.Stdout, all)
	if names := missing(all); len(names) > 0 && setting("ORACLE_THEMES") == nil {
		t.Errorf("in %d scripts there was none of %s", played.Load(), strings.Join(names, ", "))
	}
}

// failures bounds what is shrunk and how long a broken driver is looked at.
type failures struct{ n atomic.Int64 }

const mostShrunk, mostFailures = 4, 30

func (f *failures) add() (shrink bool) { return f.n.Add(1) <= mostShrunk }
func (f *failures) few() bool          { return f.n.Load() < mostFailures }

// report shrinks a script and says what it shows.
func (w *worker) report(ctx context.Context, s Script, record []Step, f finding, seed uint64, about string) string {
	small, least, lead := s, f, record
	shrink(s, time.Now().Add(shrinking), func(try Script) bool {
		record, found, err := w.play(ctx, try, []string{f.Backend}, brisk, nil)
		if err != nil || len(found) == 0 || kind(try, found[0]) != kind(s, f) {
			return false
		}
		small, least, lead = try, found[0], record
		return true
	})
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %s, on %s: %v\n", seed, about, f.Backend, f.Difference)
	fmt.Fprintf(&b, "made smaller: %v\n\n%s\nthe reference:\n", least.Difference, goTest(fmt.Sprintf("Seed%d%s", seed, strings.ToUpper(f.Backend[:1])+f.Backend[1:]), f.Backend, small))
	for i, step := range lead {
		fmt.Fprintf(&b, "%3d %s: %s\n", i, small.Ops[i].name(), step.text)
	}
	return b.String()
}

// kind tells differences apart, so that a smaller script shows the same.
func kind(s Script, f finding) string {
	what, _, _ := strings.Cut(f.What, " of message")
	return s.Ops[f.Op].name() + ": " + what
}

// replay plays one script on one backend; it is what a printed test calls.
func replay(t *testing.T, backend string, s Script) {
	t.Helper()
	backends := []string{backend}
	if s.Driver {
		backends = []string{"amqp", backend}
	}
	w := openWorker(t, testbroker.URL(t, "amqp"), backends)
	record, found, err := w.play(t.Context(), s, backends, pace{100 * time.Millisecond, usual.patience}, newTally())
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range record {
		t.Logf("%d %s: %s", i, s.Ops[i].name(), step.text)
	}
	for _, f := range found {
		t.Errorf("on %s: %v", f.Backend, f.Difference)
	}
}
