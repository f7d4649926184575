package chaos

import (
	"math/rand/v2"
	"slices"
	"time"
)

// kind is a sort of fault.
type kind string

const (
	kill       kind = "kill"        // kill -9 of the broker, and a restart
	leader     kind = "leader-kill" // kill -9 of the node that leads most
	pause      kind = "pause"       // SIGSTOP
	cut        kind = "cut"         // connections reset
	stall      kind = "stall"       // connections half-open: nothing passes
	latency    kind = "latency"
	disk       kind = "disk-full"
	memory     kind = "memory-full"
	clientKill kind = "client-kill"
)

var (
	alone    = []kind{kill, pause, cut, stall, latency, disk, clientKill}
	together = []kind{leader, pause, cut, stall, latency, disk, clientKill}
)

func with(kinds []kind, more ...kind) []kind { return append(slices.Clone(kinds), more...) }

// kills tells which kinds end a broker.
func (k kind) kills() bool { return k == kill || k == leader }

// harmless tells which kinds break no connection and hold nothing up.
func (k kind) harmless() bool { return k == latency || k == clientKill }

// A step is a fault: what, for how long, to which link, and with whom killed in it.
type step struct {
	kind   kind
	gap    time.Duration // before it
	length time.Duration
	delay  time.Duration // latency
	link   int           // of cut, stall and latency; -1: all
	victim int           // the client to be killed meanwhile; -1: none
	when   time.Duration // after the step's begin
	away   time.Duration // how long the victim stays away
}

// A schedule draws steps: every kind once, in any order but for kills, and then any.
// A broker alone is killed last, since it may need time before it. In a cluster those
// that take a node away come first and its kill in the middle, so that others fall
// into the time until the node is back.
type schedule struct {
	rng   *rand.Rand
	kinds []kind
	round []kind
	links int
}

func newSchedule(seed uint64, kinds []kind, links int) *schedule {
	s := &schedule{rng: rand.New(rand.NewPCG(seed, 0)), kinds: kinds, links: links}
	s.round = slices.Clone(kinds)
	s.rng.Shuffle(len(s.round), func(i, j int) { s.round[i], s.round[j] = s.round[j], s.round[i] })
	slices.SortStableFunc(s.round, func(a, b kind) int { return place(a) - place(b) })
	if i := slices.Index(s.round, leader); i >= 0 {
		s.round = slices.Insert(slices.Delete(s.round, i, i+1), len(s.round)/2, leader)
	}
	return s
}

// place orders the kinds of the first round.
func place(k kind) int {
	switch {
	case k == pause || k == disk:
		return 0
	case k.kills():
		return 2
	}
	return 1
}

// first is whether the first round is not over.
func (s *schedule) first() bool { return len(s.round) > 0 }

func (s *schedule) next() step {
	k := s.kinds[s.rng.IntN(len(s.kinds))]
	if s.first() {
		k, s.round = s.round[0], s.round[1:]
	}
	st := step{kind: k, gap: s.between(200, 1000), link: s.rng.IntN(s.links+1) - 1, victim: -1, away: s.between(0, 500)}
	switch k {
	case pause:
		st.length = s.between(1000, 4000)
	case stall:
		st.length = s.between(1000, 2500)
	case latency:
		st.length, st.delay = s.between(1000, 2000), s.between(20, 200)
	case disk, memory:
		st.length = s.between(800, 1500)
	case kill:
		st.length = s.between(0, 500)
	}
	if k == clientKill || s.rng.IntN(3) == 0 {
		st.victim, st.when = s.rng.IntN(len(names)), s.between(0, 1500)
	}
	return st
}

func (s *schedule) between(from, to int) time.Duration {
	return time.Duration(from+s.rng.IntN(to-from+1)) * time.Millisecond
}
