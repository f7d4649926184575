package emulate

import (
	"context"
	"errors"
	"time"

	"github.com/polymq/polymq/driver"
)

// errAgain is a plan's word that what it was prepared for has changed, or what
// prepare says of a topology that is changing.
var errAgain = errors.New("the topology changed meanwhile")

// change is alter, and when it returns nil, what it found or made is in force
// in every process.
func (c *conn) change(ctx context.Context, prepare func(*state) error, plan func(*topology) ([]Element, error)) error {
	at, err := c.alter(ctx, prepare, plan)
	if err != nil {
		return err
	}
	return c.inForce(ctx, at)
}

// alter brings about what plan says is missing, by compare-and-set: when
// somebody else was faster it reads, prepares and plans again. Prepare may do
// I/O; plan is called with the copy of the topology locked, and puts what
// others lean on first, since the elements are written in several steps. It
// returns the version that it answers for.
func (c *conn) alter(ctx context.Context, prepare func(*state) error, plan func(*topology) ([]Element, error)) (Version, error) {
	for unknown := 0; ; {
		st, err := c.refresh(ctx)
		if err != nil {
			return Version{}, err
		}
		if prepare != nil {
			if err := prepare(st); errors.Is(err, errAgain) && ctx.Err() == nil {
				continue
			} else if err != nil {
				return Version{}, err
			}
		}
		c.topo.mu.Lock()
		at := c.topo.now.version
		var elements []Element
		if err = c.topo.now.err; err == nil {
			elements, err = plan(&c.topo)
		}
		c.topo.mu.Unlock()
		if err == nil {
			at, err = c.write(ctx, at, elements)
		}
		switch {
		case err == nil:
			return at, nil
		case errors.Is(err, ErrStale), errors.Is(err, errAgain):
		case errors.Is(err, driver.ErrUnconfirmed):
			// It may have happened: the next plan sees.
			if err := sleep(ctx, c.ctx, backoff(unknown)); err != nil {
				return at, err
			}
			unknown++
		default:
			return at, err
		}
		if err := ctx.Err(); err != nil {
			return at, err
		}
	}
}

// writeTime is how long a change of many steps goes on without a pause.
const writeTime = LeaseTime / 4

// write applies the elements, in steps that the store takes, to the topology that
// the copy showed at a version. It returns the next version, which the copy has
// then. The copy takes them in together: to make a table of each step costs the
// more the more stands.
//
// Nobody can renew a lease while versions follow each other faster than they are
// read, and without one nothing is published. So a long change has pauses, until
// every client has caught up.
func (c *conn) write(ctx context.Context, at Version, elements []Element) (Version, error) {
	if len(elements) == 0 {
		return at, nil
	}
	c.topo.writes.Add(1)
	defer c.lease.changed() // others may have changed something meanwhile
	defer c.topo.writes.Add(-1)
	done := map[Version]int{at: 0} // how many of the elements a version has
	began := time.Now()
	for from := 0; ; {
		n := atOnce(elements[from:])
		next, err := c.store.ApplyTopology(ctx, at, elements[from:from+n])
		if err != nil {
			return at, err
		}
		at, from = next, from+n
		done[at] = from
		if from < len(elements) && time.Since(began) < writeTime {
			continue
		}
		if err := c.topo.takeIn(ctx, at, elements[:from], done); err != nil || from == len(elements) {
			return at, err
		}
		if err := c.inForce(ctx, at); err != nil {
			return at, err
		}
		began = time.Now()
	}
}

// takeIn puts what was written into the copy, but what a renewal of the lease has
// put there meanwhile: done is how many of the elements a version has.
func (t *topology) takeIn(ctx context.Context, at Version, elements []Element, done map[Version]int) error {
	if err := t.lock(ctx); err != nil {
		return err
	}
	defer t.unlock()
	if n, ours := done[t.current().version]; ours {
		t.absorb(Changes{Version: at, Elements: elements[n:]})
	}
	return nil
}

// atOnce is how many of the elements a store takes in one step.
func atOnce(elements []Element) int {
	n, bytes := 0, 0
	for n < len(elements) && n < MaxElements {
		bytes += len(elements[n].Name) + len(elements[n].Data)
		if n > 0 && bytes > MaxElementBytes {
			break
		}
		n++
	}
	return n
}
