package testbroker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// patience is how long a broker may take to start: a loaded machine can need
// twenty times as long as an idle one.
const patience = 3 * time.Minute

// A server is a broker that this process started: its processes, its ports and
// its data folder, which outlives the processes until remove.
type server struct {
	kind      kind
	dir       string
	ports     []int
	password  string
	tls       *certificates // nil: in clear only
	users     string        // of NATS, as its configuration has them; "": one, who may do anything
	peers     *peers        // nil: it is alone
	setup     Setup
	link      *Link // nil unless Setup.Linked
	processes []*process
	mended    int // how often its data had to be before it started
}

// startServer starts a broker and returns once it serves. What it is to have
// beside the usual, configure sets where it is not nil.
func startServer(k kind, setup Setup, configure func(*server)) (*server, error) {
	var err error
	// A port that was free a moment ago can be taken by now; then the broker
	// ends at once, and other ports will do.
	for range 3 {
		var s *server
		if s, err = newServer(k); err != nil {
			return nil, err
		}
		if configure != nil {
			configure(s)
		}
		if err = s.prepare(setup); err == nil {
			err = s.start()
		}
		if err == nil {
			return s, nil
		}
		s.remove()
		if !errors.Is(err, errEnded) {
			break
		}
	}
	return nil, err
}

// newServer is a server that has not been started.
func newServer(k kind) (*server, error) {
	s := &server{kind: k, password: rand.Text()}
	var err error
	if s.dir, err = scratch(); err != nil {
		return nil, err
	}
	if s.ports, err = freePorts(6); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

// linkPort is that of the link before a server, clientPort that of the server.
const (
	clientPort = 0
	linkPort   = 5
)

// front is the port that clients are told.
func (s *server) front() int {
	if s.link != nil {
		return s.ports[linkPort]
	}
	return s.ports[clientPort]
}

var errEnded = errors.New("it ended at once")

// start starts the processes on the ports and the data that s has.
func (s *server) start() error {
	err := s.begin()
	if m, ok := s.kind.(mender); ok && errors.Is(err, errEnded) {
		mended, failed := m.mend(s)
		if failed != nil {
			return errors.Join(err, failed)
		}
		if mended {
			s.mended++
			err = s.begin()
		}
	}
	return err
}

func (s *server) begin() error {
	if err := s.kind.launch(s); err != nil {
		s.kill()
		return err
	}
	return s.await()
}

// await waits until s, just launched, serves.
func (s *server) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		try, done := context.WithTimeout(ctx, 5*time.Second)
		err := s.kind.ready(try, s)
		done()
		if err == nil {
			return nil
		}
		if slices.ContainsFunc(s.processes, (*process).ended) {
			err = errEnded
		} else if ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		s.kill()
		return fmt.Errorf("%s does not start: %w\n%s", s.kind.title(), err, s.logTail())
	}
}

// run starts one process of s, with its output in the log.
func (s *server) run(cmd *exec.Cmd) error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, s.dir
	p, err := startProcess(cmd)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.kind.title(), err)
	}
	s.processes = append(s.processes, p)
	return nil
}

// stop ends the broker in order, the last process first.
func (s *server) stop() {
	if n := len(s.processes); n > 0 {
		s.processes[n-1].stop(patience)
	}
	s.kill()
}

// kill ends the processes at once and returns when they are gone.
func (s *server) kill() {
	for _, p := range slices.Backward(s.processes) {
		p.kill()
	}
	s.processes = nil
}

// running is whether s was started and not killed since.
func (s *server) running() bool { return len(s.processes) > 0 }

func (s *server) remove() {
	s.kill()
	if s.link != nil {
		s.link.close()
	}
	if s.setup.Disk > 0 {
		unmount(s.data())
	}
	_ = removeScratch(s.dir) // what is left is removed by a later run
}

func (s *server) address(port int) string { return "127.0.0.1:" + strconv.Itoa(s.ports[port]) }

func (s *server) logTail() string {
	b, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-25):], "\n")
}

// givenPorts are those that freePorts has returned: a broker that is yet to be
// launched, or that is down for a while, does not listen on its own.
var givenPorts sync.Map

// freePorts returns n ports that are free now, none of them twice. They lie below
// the range from which systems take the ports of outgoing connections, so that a
// broker finds its own still free when it is started again.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range 1000 {
		r, err := rand.Int(rand.Reader, big.NewInt(20000))
		if err != nil {
			return nil, err
		}
		port := 10000 + int(r.Int64())
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		l.Close()
		if _, given := givenPorts.LoadOrStore(port, true); given {
			continue
		}
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("no free port on 127.0.0.1 from 10000 to 29999")
}
