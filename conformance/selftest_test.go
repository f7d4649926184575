package conformance

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/conformance/internal/faulty"
	"github.com/polymq/polymq/drivers/mem"
)

var faults atomic.Int64

// backend is memory behind a driver that can be made to fail, with every hook.
func backend(f faulty.Fault, patience time.Duration) Backend {
	d := faulty.New(mem.Driver, f)
	scheme := fmt.Sprintf("faulty%d", faults.Add(1))
	polymq.Register(scheme, d)
	host := func(url string) string {
		_, name, _ := strings.Cut(url, "://")
		name, _, _ = strings.Cut(name, "?")
		return name
	}
	fresh := func(t testing.TB) string {
		name := fmt.Sprintf("faulty-%d", faults.Add(1))
		t.Cleanup(func() { mem.Remove(name) })
		return scheme + "://" + name
	}
	return Backend{
		Namespace: fresh,
		Sever: func(_ testing.TB, url string) (string, func()) {
			return url, func() {
				d.Sever()
				mem.Sever(host(url))
			}
		},
		Kill:  func(_ testing.TB, url string) (string, func()) { return d.Mortal(url) },
		Pause: func(_ testing.TB, url string) (string, func(), func()) { return d.Pausable(url) },
		Restart: func(t testing.TB) (string, func()) {
			url := fresh(t)
			return url, func() { mem.Restart(host(url)) }
		},
		Newer:    func(_ testing.TB, url string) { d.Newer(url) },
		Patience: patience,
	}
}

// TestSound runs every row, with every hook, on the wrapper without a fault:
// what the suite finds behind a fault is the fault.
func TestSound(t *testing.T) {
	Run(t, backend(faulty.Fault{}, 5*time.Second))
}

// TestFaults runs the row that is to catch each fault, or the rows of the
// promise that it breaks: one at least must fail.
func TestFaults(t *testing.T) {
	covered := map[int]bool{}
	for _, f := range faulty.Faults() {
		covered[f.Promise] = true
		t.Run(fmt.Sprintf("%02d %s", f.Promise, f.Name), func(t *testing.T) {
			if f.Promise != 22 { // which counts goroutines
				t.Parallel()
			}
			b := backend(f, 500*time.Millisecond)
			b.waits = 1 // a row that waits in vain has found the fault
			b = b.withDefaults()
			for _, r := range rows {
				if r.promise != f.Promise || f.Row != "" && r.name != f.Row {
					continue
				}
				if out := record(t, func(tb testing.TB) { r.do(tb, &b) }); out.failed {
					t.Logf("caught by %s:\n%s", r.fullName(), strings.Join(out.logs, "\n"))
					return
				}
			}
			if f.Row != "" {
				t.Errorf("a driver that %s passes row %q of promise %d", f.Name, f.Row, f.Promise)
				return
			}
			t.Errorf("a driver that %s passes every row of promise %d", f.Name, f.Promise)
		})
	}
	for _, p := range promises {
		if !covered[p.number] {
			t.Errorf("no fault breaks promise %v", p)
		}
	}
}

// TestQueueRows has a fault for each row about what queues can do, and for the kind
// of exchanges that a broker may lack.
func TestQueueRows(t *testing.T) {
	for _, r := range slices.Concat(hashRows, expiryRows, limitRows, priorityRows, activeRows, temporaryRows, delayRows, redriveRows, pauseRows) {
		if !slices.ContainsFunc(faulty.Faults(), func(f faulty.Fault) bool { return f.Promise == r.promise && f.Row == r.name }) {
			t.Errorf("no fault is there for %s to catch", r.fullName())
		}
	}
}
