package redis

import (
	"fmt"
	"slices"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// resolve tells the parcels of a call their outcome; an error means that it is
// unknown, or that the server was not ready.
func (l *lane) resolve(c *call) error {
	if c.done {
		return nil
	}
	err := c.err
	if lost(err) || transient(reply(err)) {
		if full(reply(err)) {
			l.s.full.Store(true)
		}
		if lost(err) && c.on >= 0 && !untried(err) {
			c.doubt()
		}
		return err
	}
	c.done = true
	var outcome error
	switch {
	case err != nil:
		outcome = c.refused(err)
	case c.gone:
		outcome = emulate.ErrGone
	}
	if err == nil {
		l.s.full.Store(false)
	}
	for _, it := range c.items {
		if it.parcel == nil {
			continue
		}
		p := it.parcel
		it.parcel = nil
		if it.failed != nil {
			p.Done(it.failed)
		} else {
			p.Done(outcome)
		}
	}
	return nil
}

// refused is the outcome of a message that the server would not store. Where another
// one may have stored it, the refusal is not all there is to say.
func (c *call) refused(err error) error {
	err = refused(err)
	if c.doubtful() {
		return fmt.Errorf("%w; another try was refused: %w", driver.ErrUnconfirmed, err)
	}
	return err
}

// shed lets go of the messages of those who have given up.
func (l *lane) shed(f *flight, err error) {
	for _, it := range f.batch {
		if it.parcel != nil && it.parcel.Abandoned() {
			it.parcel.Done(unconfirmed(err))
			it.parcel = nil
		}
	}
	var shed []*item
	l.mu.Lock()
	l.queue = slices.DeleteFunc(l.queue, func(it *item) bool {
		if !it.parcel.Abandoned() {
			return false
		}
		l.size -= len(it.words)
		shed = append(shed, it)
		return true
	})
	l.mu.Unlock()
	for _, it := range shed {
		it.parcel.Done(unconfirmed(err))
		it.free()
	}
}

// clear resolves what is queued, when the store is closed.
func (l *lane) clear() {
	l.mu.Lock()
	left := l.queue
	l.queue, l.size = nil, 0
	l.mu.Unlock()
	abandon(left)
}

// abandon resolves what nobody sends any more, when the store is closed.
func abandon(left []*item) {
	for _, it := range left {
		if it.parcel != nil {
			it.parcel.Done(unconfirmed(driver.ErrClosed))
			it.parcel = nil
		}
	}
}
