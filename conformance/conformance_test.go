package conformance_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/polymq/polymq/conformance"
	"github.com/polymq/polymq/drivers/mem"
)

var names atomic.Int64

// memory is a fresh broker in memory.
func memory(t testing.TB) string {
	name := fmt.Sprintf("conformance-%d", names.Add(1))
	t.Cleanup(func() { mem.Remove(name) })
	return "mem://" + name
}

// TestKnown runs the suite in a process of its own, where it may fail.
func TestKnown(t *testing.T) {
	for _, test := range []struct {
		known, url string
		fails      bool
		says       string
	}{
		{"", "", false, ""},
		{"09_InForce/bind", "", true, "09_InForce/bind passes, but Backend.Known lists it as failing (an issue): take it off the list"},
		{"09_InForce/no-such-row", "", true, `Backend.Known names "09_InForce/no-such-row", which is no row of the suite`},
		{"09_InForce/bind", "no-such-broker://", false, "known to fail: an issue"},
		{"", "no-such-broker://", true, "the promise: 9. In force: When Declare, Bind, Unbind or a deletion has returned"},
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKnownChild$/^09_InForce$/^bind$", "-test.v")
		cmd.Env = append(os.Environ(), "CONFORMANCE_CHILD=1", "CONFORMANCE_KNOWN="+test.known, "CONFORMANCE_URL="+test.url)
		out, err := cmd.CombinedOutput()
		if (err != nil) != test.fails || !strings.Contains(string(out), test.says) {
			t.Errorf("with %q known to fail, on %q: got error %v, want one: %v, and %q in\n%s", test.known, test.url, err, test.fails, test.says, out)
		}
	}
}

// TestKnownChild is what TestKnown runs.
func TestKnownChild(t *testing.T) {
	if os.Getenv("CONFORMANCE_CHILD") == "" {
		return
	}
	b := conformance.Backend{Namespace: memory}
	if url := os.Getenv("CONFORMANCE_URL"); url != "" {
		b.Namespace = func(testing.TB) string { return url }
	}
	if known := os.Getenv("CONFORMANCE_KNOWN"); known != "" {
		b.Known = map[string]string{known: "an issue"}
	}
	conformance.Run(t, b)
}
