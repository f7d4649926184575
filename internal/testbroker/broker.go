package testbroker

import (
	"net/url"
	"testing"
)

// A Broker is a private broker of one test, which may kill it. Its methods
// fail the test where they do not succeed, so they belong into the goroutine
// that runs the test; one at a time.
type Broker struct {
	t      testing.TB
	server *server
}

// Start starts a broker for t alone, for the scheme "amqp", "nats" or "redis",
// and returns when it serves. It is killed and its data removed when t ends.
// Under -short it skips t.
func Start(t testing.TB, scheme string) *Broker {
	t.Helper()
	return begin(t, scheme, Setup{}, nil)
}

// StartNATS is Start for a NATS server with users of its own: the part of its
// configuration that says who they are and what they may do. The URL names none
// of them.
func StartNATS(t testing.TB, users string) *Broker {
	t.Helper()
	return begin(t, "nats", Setup{}, func(s *server) { s.users = users })
}

func begin(t testing.TB, scheme string, setup Setup, configure func(*server)) *Broker {
	t.Helper()
	k := kindOf(t, scheme)
	if testing.Short() {
		t.Skipf("-short: %s is left out", k.title())
	}
	s, err := startServer(k, setup, configure)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.remove)
	return &Broker{t: t, server: s}
}

// URL addresses the broker, by way of its link if it has one. It stays the same
// over restarts.
func (b *Broker) URL() string {
	direct := b.server.kind.url(b.server)
	if b.server.link == nil {
		return direct
	}
	u, err := url.Parse(direct)
	if err != nil {
		b.t.Fatal(err)
	}
	u.Host = b.server.link.address
	return u.String()
}

// Kill ends the broker at once, as kill -9 does, and returns when it is gone.
// RabbitMQ writes down which quorum queues it has some seconds after it made
// them: one killed before that comes back with queues that never answer.
func (b *Broker) Kill() { b.server.kill() }

// Start starts a killed broker again, on the same port and data, and returns
// when it serves. A Redis whose append-only file is torn has it mended first, as an
// operator would do; that is logged.
func (b *Broker) Start() {
	b.t.Helper()
	if b.server.running() {
		return
	}
	if err := b.restart(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *Broker) restart() error {
	before := b.server.mended
	err := b.server.start()
	if b.server.mended > before {
		b.t.Logf("%s did not start before its data were mended", b.server.kind.title())
	}
	return err
}

// Restart ends the broker in order and starts it again, on the same port and
// data; it returns when the broker serves.
func (b *Broker) Restart() {
	b.t.Helper()
	b.server.stop()
	b.Start()
}

// Pause stops the broker's processes without ending them: connections stay,
// nothing answers.
func (b *Broker) Pause() {
	for _, p := range b.server.processes {
		p.pause()
	}
}

// Resume lets a paused broker go on.
func (b *Broker) Resume() {
	for _, p := range b.server.processes {
		p.resume()
	}
}
