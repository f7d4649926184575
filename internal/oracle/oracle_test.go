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

// patient is for what is played once.
var patient = pace{quiet: 100 * time.Millisecond, patience: usual.patience}

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
// ORACLE_BACKENDS select, ORACLE_WORKERS says how many at a time. A Report goes
// into the file ORACLE_REPORT. As many scripts as make test plays, or more, must
// have had every operation and feature.
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
	ws := openWorkers(t, int(min(number(t, "ORACLE_WORKERS", workers), limit)), backends)
	for _, w := range ws {
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
					line := fmt.Sprintf("seed %d, %s: %v", seed+uint64(n), about, err)
					t.Error(line)
					failures.add(line)
					continue
				}
				played.Add(1)
				all.add("ms all", int(time.Since(began).Milliseconds()))
				if count(all, s, record) == 0 {
					barren.Add(1)
				}
				for i, f := range found {
					line := fmt.Sprintf("seed %d, %s, on %s: %v", seed+uint64(n), about, f.Backend, f.Difference)
					t.Error(line)
					if failures.add(line) && i == 0 {
						t.Log(w.smaller(t.Context(), s, record, f, seed+uint64(n)))
					}
				}
			}
		})
	}
	wg.Wait()
	if file := os.Getenv("ORACLE_REPORT"); file != "" {
		r := Report{int(played.Load()), seed, time.Since(began), failures.lines, applied(all), ws[0].features()}
		if err := r.write(file); err != nil {
			t.Error(err)
		}
	}
	fmt.Printf("%d scripts from seed %d in %v, %d %s, %d %s\n", played.Load(), seed, time.Since(began).Round(time.Second), all.of(unsteady), unsteady, all.of(broken), broken)
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
	if names := missing(all); len(names) > 0 && setting("ORACLE_THEMES") == nil && played.Load() >= scripts {
		t.Errorf("in %d scripts there was none of %s", played.Load(), strings.Join(names, ", "))
	}
}

// failures bounds what is shrunk and how long a broken driver is looked at.
type failures struct {
	mu    sync.Mutex
	lines []string
}

const mostShrunk, mostFailures = 4, 30

func (f *failures) add(line string) (shrink bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = append(f.lines, line)
	return len(f.lines) <= mostShrunk
}

func (f *failures) few() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.lines) < mostFailures
}

// smaller shrinks a script and says what is left of it shows.
func (w *worker) smaller(ctx context.Context, s Script, record []Step, f finding, seed uint64) string {
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
	w := openWorker(t, testbroker.URL(t, "amqp"), backends)
	record, found, err := w.play(t.Context(), s, backends, patient, newTally())
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
