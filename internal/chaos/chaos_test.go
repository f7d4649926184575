package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
	"github.com/polymq/polymq/internal/testbroker"
)

func TestMain(m *testing.M) {
	Client()
	testbroker.Isolate()
	testbroker.Main(m)
}

// seconds is how long a run of make test disturbs a backend.
const seconds = 20

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

// TestChaos is the fault run, on one backend after another.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the fault run is left out")
	}
	if !testbroker.CanFillDisk() {
		t.Fatal("a full disk needs a file system of its own, which this system lets nobody mount, not even in a namespace: run it as root")
	}
	selected := strings.Fields(os.Getenv("CHAOS"))
	for _, name := range selected {
		if !slices.ContainsFunc(Backends, func(b Backend) bool { return b.Name == name }) {
			t.Fatalf("CHAOS: there is no backend %q", name)
		}
	}
	o := Options{
		Duration: time.Duration(number(t, "CHAOS_SECONDS", seconds)) * time.Second,
		Seed:     number(t, "CHAOS_SEED", rand.Uint64N(1<<32)),
	}
	if len(selected) == 0 {
		for _, b := range Backends {
			selected = append(selected, b.Name)
		}
	}
	for _, name := range selected {
		b := Backends[slices.IndexFunc(Backends, func(b Backend) bool { return b.Name == name })]
		t.Run(b.Name, func(t *testing.T) {
			if !measuring() {
				// While one is disturbed the next starts.
				t.Parallel()
			}
			fmt.Printf("%s: seed %d\n", b.Name, o.Seed)
			tell(t, b.Run(t, o))
		})
	}
}

// measuring is whether how soon a backend is back counts. It depends on what else
// the machine does, so that it does in a run that has the machine to itself.
func measuring() bool { return os.Getenv("CHAOS_SECONDS") != "" }

// tell prints a report, and fails t by it.
func tell(t *testing.T, r *Report) {
	for _, line := range r.Lines {
		fmt.Println(line)
	}
	for _, v := range r.Violations[:min(len(r.Violations), 40)] {
		t.Error(v)
	}
	if n := len(r.Violations); n > 0 {
		t.Errorf("%d in all; the ledgers and the clients' logs are in %s", n, r.Dir)
	}
	if r.Over && measuring() {
		t.Errorf("resumed later than %v", Bar)
	}
}

// TestLiar: a run on a driver that confirms before it sends exits with 1 and says
// what was lost.
func TestLiar(t *testing.T) {
	if os.Getenv("CHAOS_TEST_LIAR") == "" {
		if testing.Short() {
			t.Skip("-short: Redis is left out")
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestLiar$", "-test.v")
		cmd.Env = append(os.Environ(), "CHAOS_TEST_LIAR=1", "TMPDIR="+t.TempDir()) // what it leaves for a look
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "was confirmed and never delivered") {
			t.Fatalf("it does not exit with 1: %v\n%s", err, out)
		}
		return
	}
	i := slices.IndexFunc(Backends, func(b Backend) bool { return b.Name == "redis" })
	b := Backends[i]
	b.setup.Disk, b.kinds = 0, []kind{pause, clientKill} // the second is part of the first
	tell(t, b.Run(t, Options{liar: true, drain: 2 * time.Second, script: []step{{kind: pause, length: 1500 * time.Millisecond, link: -1, victim: 0, when: time.Second}}}))
}
