package polymqtest

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/drivers/mem"
)

// Op is what a step does.
type Op string

// The steps that can go wrong.
const (
	Publish Op = "publish" // a message on its way to the broker
	Deliver Op = "deliver" // a message on its way to the application
	Settle  Op = "settle"  // a settlement on its way to the broker
)

// Step is one thing that is about to happen to one message.
type Step struct {
	Op      Op             // what is about to happen
	Name    string         // the exchange that is published to, "" being the default one, or the queue
	Message polymq.Message // not to be changed
	Attempt int            // of a delivery and its settlement
	N       int            // the how-manieth step with this Op since Inject, from 1
}

// Fault is what goes wrong with a step; the zero value is nothing. Delay comes
// first, and then what is set.
type Fault struct {
	// Delay is how long the step waits. Steps behind it in the same call wait,
	// too, so that the order stays.
	Delay time.Duration
	// Drop loses the step. A publish is ErrUnconfirmed and no queue has the
	// message; a delivery does not reach the application and comes again, with
	// its attempt counted; a settlement is ErrLost and the message comes again.
	Drop bool
	// Duplicate makes two messages of a publish, with the same ID, as a retry
	// does behind the deduplication window; and hands out a delivery twice, of
	// which only the second counts when it is settled. A settlement has none.
	Duplicate bool
	// Disconnect cuts every connection to the broker before the step, as
	// Broker.Disconnect does: a publish is then made on the one that came back,
	// a delivery comes again, and a settlement is ErrLost.
	Disconnect bool
}

// Rule says what goes wrong with a step. It is called for one at a time, in the
// order in which they come about, and must not use the broker.
type Rule func(Step) Fault

// Chances are how likely each fault is, from 0, never, to 1, always.
type Chances struct {
	// The chances of each field of Fault.
	Delay, Drop, Duplicate, Disconnect float64
	// MaxDelay is the longest delay, which is drawn evenly. Default: 1 s.
	MaxDelay time.Duration
}

// Sometimes is a rule by chance. The same seed gives the same faults for the
// same steps: a test logs it, to be run again with it.
func Sometimes(seed uint64, c Chances) Rule {
	if c.MaxDelay <= 0 {
		c.MaxDelay = time.Second
	}
	r := rand.New(rand.NewPCG(seed, 0))
	return func(Step) (f Fault) {
		// Always as many numbers, so that one chance does not shift another.
		delay, drop, duplicate, disconnect, long := r.Float64(), r.Float64(), r.Float64(), r.Float64(), r.Int64N(int64(c.MaxDelay))
		if delay < c.Delay {
			f.Delay = time.Duration(long) + 1
		}
		f.Drop, f.Duplicate, f.Disconnect = drop < c.Drop, duplicate < c.Duplicate, disconnect < c.Disconnect
		return f
	}
}

// faults are those of one broker in memory.
type faults struct {
	name string

	mu    sync.Mutex
	rule  Rule
	count map[Op]int
	dups  int
}

var (
	brokersMu sync.Mutex
	brokers   = map[string]*faults{}
)

func newFaults(name string) *faults {
	f := &faults{name: name}
	brokersMu.Lock()
	defer brokersMu.Unlock()
	brokers[name] = f
	return f
}

func (f *faults) end() {
	brokersMu.Lock()
	defer brokersMu.Unlock()
	delete(brokers, f.name)
}

func faultsOf(name string) *faults {
	brokersMu.Lock()
	defer brokersMu.Unlock()
	return brokers[name]
}

func (f *faults) set(rule Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rule, f.count = rule, map[Op]int{}
}

// strike says what goes wrong, waits and disconnects. False where ctx ended the
// wait.
func (f *faults) strike(ctx context.Context, s Step) (fault Fault, ok bool) {
	f.mu.Lock()
	if f.rule != nil {
		f.count[s.Op]++
		s.N = f.count[s.Op]
		fault = f.rule(s)
	}
	f.mu.Unlock()
	if fault.Delay > 0 {
		t := time.NewTimer(fault.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return fault, false
		}
	}
	if fault.Disconnect {
		mem.Sever(f.name)
	}
	return fault, true
}

// number tells duplicates apart.
func (f *faults) number() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dups++
	return f.dups
}
