package conformance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
)

// Backend is what the suite runs on. Only Namespace is required.
type Backend struct {
	// Namespace returns the URL of a fresh, empty namespace, which it removes
	// when t ends. A lease that can be set in the URL should be a few seconds:
	// rows wait for it.
	Namespace func(t testing.TB) string
	// Open connects to a URL. Default: polymq.Open.
	Open func(ctx context.Context, url string, opts *polymq.Options) (*polymq.Conn, error)

	// Sever returns another URL that leads to the namespace at url, and a
	// function that breaks off the connections made through it. New ones may
	// be made at once.
	Sever func(t testing.TB, url string) (through string, sever func())
	// Kill returns another URL that leads to the namespace at url, and a
	// function after which clients connected through it are to the broker like
	// a process killed with -9: cut off for good, without a word.
	Kill func(t testing.TB, url string) (through string, kill func())
	// Pause returns another URL that leads to the namespace at url, and
	// functions that make the broker hang for those connected through it, with
	// their connections open, and go on.
	Pause func(t testing.TB, url string) (through string, pause, resume func())
	// Restart returns the URL of a fresh namespace on a broker that keeps what
	// is durable, and a function that restarts the broker and returns when it
	// is up.
	Restart func(t testing.TB) (url string, restart func())
	// Newer makes what is stored at url look as if a later, incompatible
	// version of the library had written it.
	Newer func(t testing.TB, url string)

	// Patience is how long what must come may take on a machine that has time
	// for it. The suite waits for six times as long before it says that it does
	// not come. Default: 5 s.
	Patience time.Duration
	// Known maps rows that are known to fail, by name (09_InForce/bind), to an
	// issue. A listed row that passes fails the run, as does a name that the
	// table does not have.
	Known map[string]string

	// waits is how many times Patience the suite waits for what must come; fewer
	// than the default where it is to find that it does not.
	waits int
}

// row is one case of one promise.
type row struct {
	promise int
	name    string
	needs   []polymq.Feature
	hooks   hook
	run     func(e *env)
}

// hook is a set of the optional hooks of Backend.
type hook uint8

const (
	hookSever hook = 1 << iota
	hookKill
	hookPause
	hookRestart
	hookNewer
)

func (b *Backend) hooks() hook {
	var h hook
	for i, there := range []bool{b.Sever != nil, b.Kill != nil, b.Pause != nil, b.Restart != nil, b.Newer != nil} {
		if there {
			h |= 1 << i
		}
	}
	return h
}

func (b Backend) withDefaults() Backend {
	if b.Open == nil {
		b.Open = polymq.Open
	}
	if b.Patience == 0 {
		b.Patience = 5 * time.Second
	}
	if b.waits == 0 {
		b.waits = 6
	}
	return b
}

// Run runs the suite. It must not run in parallel with other tests of the
// process: it counts goroutines.
func Run(t *testing.T, b Backend) {
	t.Helper()
	if b.Namespace == nil {
		t.Fatal("conformance: Backend.Namespace is not set")
	}
	b = b.withDefaults()
	for name := range b.Known {
		if !slices.ContainsFunc(rows, func(r row) bool { return r.fullName() == name }) {
			t.Errorf("Backend.Known names %q, which is no row of the suite", name)
		}
	}
	var left []string
	for _, p := range promises {
		t.Run(p.testName(), func(t *testing.T) {
			for _, r := range rows {
				switch {
				case r.promise != p.number:
				case r.hooks&^b.hooks() != 0:
					left = append(left, r.fullName())
				default:
					t.Run(r.name, func(t *testing.T) { runRow(t, &b, r) })
				}
			}
		})
	}
	if len(left) > 0 {
		t.Logf("the backend offers no hook for %d rows: %s", len(left), strings.Join(left, ", "))
	}
}

func runRow(t *testing.T, b *Backend, r row) {
	issue, known := b.Known[r.fullName()]
	if !known {
		defer func() {
			if t.Failed() {
				t.Logf("the promise: %v", r.of())
			}
		}()
		r.do(t, b)
		return
	}
	out := record(t, func(tb testing.TB) { r.do(tb, b) })
	if !out.failed {
		t.Fatalf("%s passes, but Backend.Known lists it as failing (%s): take it off the list", r.fullName(), issue)
	}
	t.Skipf("known to fail: %s\n%s", issue, strings.Join(out.logs, "\n"))
}

// do runs the row, or the refusal of a feature that it needs.
func (r row) do(tb testing.TB, b *Backend) {
	tb.Helper()
	e := newEnv(tb, b)
	defer e.cancel()
	if len(r.needs) > 0 {
		have := e.open().Features()
		for _, f := range r.needs {
			if !have.Has(f) {
				e.refused(f)
				return
			}
		}
	}
	r.run(e)
}

func (r row) of() promise {
	i := slices.IndexFunc(promises, func(p promise) bool { return p.number == r.promise })
	return promises[i]
}

func (r row) fullName() string { return r.of().testName() + "/" + r.name }

func (p promise) testName() string { return fmt.Sprintf("%02d_%s", p.number, p.name) }

func (p promise) String() string {
	return fmt.Sprintf("%d. %s: %s", p.number, p.title(), p.text)
}

// title is the name with its words apart: "Side by side" of "SideBySide".
func (p promise) title() string {
	var b strings.Builder
	for i, c := range p.name {
		if i > 0 && c >= 'A' && c <= 'Z' {
			b.WriteByte(' ')
			c += 'a' - 'A'
		}
		b.WriteRune(c)
	}
	return b.String()
}
