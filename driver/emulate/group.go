package emulate

import (
	"sync"
	"sync/atomic"
)

// group is the sendings of one Publish. It is used again once the store is done
// with all of them, unless the retrier has had to do with one: that looks at
// them at any time.
type group struct {
	sendings []sending
	left     atomic.Int64 // sendings that the store may know, and one for Publish
	kept     atomic.Bool  // by the retrier
}

// again makes a sending ready to be used again.
func (s *sending) again() {
	if s.fan != nil {
		s.fan.clear()
		s.spare, s.fan = s.fan, nil
	}
	if s.dedupID != "" || s.delayed {
		s.dedupID, s.delayed = "", false
	}
	s.publishing, s.one.Publishing = nil, nil
	s.over.Store(false)
	s.one.tries, s.one.Retry = 0, false
}

var groups sync.Pool // of *group

func newGroup(n int) *group {
	g, _ := groups.Get().(*group)
	if g == nil {
		g = new(group)
	}
	if cap(g.sendings) < n {
		g.sendings = make([]sending, n)
	}
	g.sendings = g.sendings[:n]
	g.left.Store(int64(n) + 1)
	return g
}

// leave notes that so many are done with.
func (g *group) leave(n int64) {
	if g.left.Add(-n) > 0 || g.kept.Load() {
		return
	}
	for i := range g.sendings {
		g.sendings[i].again()
	}
	groups.Put(g)
}

// leave notes that nobody knows the sending any more.
func (s *sending) leave() {
	if s.group != nil {
		s.group.leave(1)
	}
}

// keep is for the retrier.
func (s *sending) keep() {
	if s.group != nil {
		s.group.kept.Store(true)
	}
}
