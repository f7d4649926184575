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
	v, err := c.cmd.Result()
	if err == nil {
		err = c.err
	}
	if lost(err) || transient(reply(err)) {
		if full(reply(err)) {
			l.s.full.Store(true)
		}
		if lost(err) && !notSent(err) {
			c.doubt()
		}
		return err
	}
	if err == nil {
		l.s.full.Store(false)
	}
	c.done = true
	var outcome error
	switch {
	case err != nil:
		outcome = c.refused(err)
	case v == int64(0):
		outcome = emulate.ErrGone
	}
	if failures, ok := v.([]any); ok {
		l.partly(c, failures)
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

// partly notes which messages the server would not store.
func (l *lane) partly(c *call, failures []any) {
	at := map[int64]string{}
	for i := 0; i+1 < len(failures); i += 2 {
		n, _ := failures[i].(int64)
		at[n], _ = failures[i+1].(string)
	}
	for i, it := range c.items {
		if text, ok := at[int64(i)]; ok {
			it.failed = c.refused(serverError(text))
		}
	}
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
func (l *lane) shed(err error) {
	for _, it := range l.batch {
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
		shed = append(shed, it)
		return true
	})
	l.mu.Unlock()
	for _, it := range shed {
		it.parcel.Done(unconfirmed(err))
		it.free()
	}
}

// abandon resolves all that is left, when the store is closed.
func (l *lane) abandon() {
	l.mu.Lock()
	left := append(l.batch, l.queue...)
	l.batch, l.queue, l.busy = nil, nil, false
	l.mu.Unlock()
	for _, it := range left {
		if it.parcel != nil {
			it.parcel.Done(unconfirmed(driver.ErrClosed))
		}
	}
}
