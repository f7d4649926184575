package chaos

import (
	"time"

	"github.com/polymq/polymq/internal/testbroker"
)

// inject does a fault, and returns when the broker serves as before.
func (s *site) inject(f *fault) {
	s.t.Helper()
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
		dead.Start()
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
		node.FullDisk(f.length)
	case memory:
		node.FullMemory(f.length)
	case clientKill:
		time.Sleep(f.when + f.away) // it is done beside the others
	}
	if f.ready.IsZero() {
		f.ready = time.Now()
	}
	if s.many != nil {
		s.many.Await()
	}
	f.over = time.Now()
	if s.all {
		f.ready = f.over
	}
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
