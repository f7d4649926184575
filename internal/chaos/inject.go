package chaos

import (
	"time"

	"github.com/polymq/polymq/internal/testbroker"
)

// away is a node that was killed and is on its way back.
type away struct {
	fault *fault
	back  <-chan testbroker.Rejoined
}

// whole waits until no node is away.
func (s *site) whole() {
	s.t.Helper()
	if s.away == nil {
		return
	}
	back := <-s.away.back
	if back.Err != nil {
		s.t.Fatalf("%s: the node that was killed: %v", s.Name, back.Err)
	}
	s.away.fault.over = back.At
	s.t.Logf("the node that was killed is back after %v", round(back.At.Sub(s.away.fault.begun)))
	s.away = nil
}

// inject does a fault, and returns when the broker serves as before; where a majority
// does, a node may still be away.
func (s *site) inject(f *fault) {
	s.t.Helper()
	if s.takes(f.kind) {
		s.whole()
	}
	links := s.links
	if f.link >= 0 {
		links = links[f.link : f.link+1]
	}
	node := s.one
	if s.many != nil && (f.kind == pause || f.kind == disk || f.kind == memory) {
		node = s.many.Leader()
	}
	f.begun = time.Now()
	switch f.kind {
	case kill:
		node.Kill()
		time.Sleep(f.length)
		node.Start()
	case leader:
		dead := s.many.Failover()
		f.ready = time.Now()
		s.away = &away{f, s.many.Rejoin(dead)}
		if !s.majority {
			s.whole()
		}
	case pause:
		node.Pause()
		time.Sleep(f.length)
		node.Resume()
	case cut:
		for _, l := range links {
			l.Cut()
		}
	case stall, latency:
		for _, l := range links {
			disturb(l, f, true)
		}
		time.Sleep(f.length)
		for _, l := range links {
			disturb(l, f, false)
		}
	case disk:
		node.FullDisk(func() { time.Sleep(f.length) })
	case memory:
		node.FullMemory(func() { time.Sleep(f.length) })
	case clientKill:
		time.Sleep(f.when + f.away) // it is done beside the others
	}
	if f.ready.IsZero() {
		f.ready = time.Now()
	}
	if s.away != nil && s.away.fault == f {
		return
	}
	if s.many != nil && s.away == nil {
		s.many.Await()
	}
	f.over = time.Now()
	if s.all {
		f.ready = f.over
	}
}

// takes is whether a fault of this kind takes a node away. RabbitMQ's alarms do not.
func (s *site) takes(k kind) bool {
	return k.kills() || k == pause || k == disk && s.scheme != "amqp"
}

func disturb(l *testbroker.Link, f *fault, on bool) {
	switch {
	case f.kind == stall:
		l.Stall(on)
	case on:
		l.Delay(f.delay)
	default:
		l.Delay(0)
	}
}
