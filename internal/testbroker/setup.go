package testbroker

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// A Setup is what a broker has beside the usual.
type Setup struct {
	// Linked puts a link before the broker, by which its clients come, and on Redis
	// its replicas and sentinels too: Broker.Link.
	Linked bool
	// Disk is the size in bytes of a file system of its own for the data of NATS or
	// Redis, 0 for none, so that Broker.FillDisk can fill it. It needs Isolate.
	Disk int64
	// Fsync has Redis confirm nothing that is not on the disk.
	Fsync bool
	// Patient has the members of a Redis cluster, and sentinels, wait for half a
	// minute before they take a server for dead, for tests in which none dies: on a
	// busy machine one can be silent for the second or two that they wait otherwise.
	Patient bool
}

// StartWith is Start with a setup.
func StartWith(t testing.TB, scheme string, setup Setup) *Broker {
	t.Helper()
	return begin(t, scheme, setup, nil)
}

// dataFolder is where in its folder a broker keeps its data.
const dataFolder = "data"

func (s *server) data() string { return filepath.Join(s.dir, dataFolder) }

// prepare sets s up before it is first started.
func (s *server) prepare(setup Setup) error {
	if setup.Linked {
		var err error
		if s.link, err = newLink("127.0.0.1:"+strconv.Itoa(s.ports[linkPort]), s.address(clientPort)); err != nil {
			return err
		}
	}
	if setup.Disk > 0 {
		if err := os.Mkdir(s.data(), 0o700); err != nil {
			return err
		}
		if err := mount(s.data(), setup.Disk); err != nil {
			return err
		}
	}
	s.setup = setup
	return nil
}

// silence is after how many milliseconds a server is taken for dead.
func (setup Setup) silence(usual int) int {
	if setup.Patient {
		return 30_000
	}
	return usual
}

// Link is the link before a broker with Setup.Linked.
func (b *Broker) Link() *Link {
	b.server.link.t = b.t
	return b.server.link
}
