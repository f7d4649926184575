package nats

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// slot is the place of a parcel in flight.
type slot struct {
	index, generation int
	reply             string
	parcel            *emulate.Parcel // nil: free
	sent              time.Time
}

// take gives the parcel a slot, and returns it as it is now: another goroutine
// may take the parcel out of it at any moment.
func (p *publisher) take(parcel *emulate.Parcel, now time.Time) (slot, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return slot{}, fmt.Errorf("%w: %w", driver.ErrUnconfirmed, driver.ErrClosed)
	}
	var sl *slot
	if n := len(p.free); n > 0 {
		sl = p.free[n-1]
		p.free = p.free[:n-1]
	} else {
		sl = &slot{index: len(p.slots)}
		sl.reply = p.inbox + strconv.Itoa(sl.index) + "-0"
		p.slots = append(p.slots, sl)
	}
	sl.parcel, sl.sent = parcel, now
	return *sl, nil
}

// resolve frees a slot and returns its parcel; nil when another was faster.
func (p *publisher) resolve(index, generation int) *emulate.Parcel {
	p.mu.Lock()
	defer p.mu.Unlock()
	if index >= len(p.slots) {
		return nil
	}
	sl := p.slots[index]
	parcel := sl.parcel
	if sl.generation != generation || parcel == nil {
		return nil
	}
	sl.parcel = nil
	p.free = append(p.free, sl)
	return parcel
}

// abandon takes every parcel for which stale holds. Late answers to them must
// not be taken for answers to what uses the slot next, so it gets a new reply
// subject.
func (p *publisher) abandon(stale func(*slot) bool) (parcels []*emulate.Parcel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, sl := range p.slots {
		if sl.parcel == nil || !stale(sl) {
			continue
		}
		parcels = append(parcels, sl.parcel)
		sl.parcel = nil
		sl.generation++
		sl.reply = p.inbox + strconv.Itoa(sl.index) + "-" + strconv.Itoa(sl.generation)
		p.free = append(p.free, sl)
	}
	return parcels
}

func parseSlot(s string) (index, generation int, ok bool) {
	left, right, ok := strings.Cut(s, "-")
	if !ok {
		return 0, 0, false
	}
	index, err1 := strconv.Atoi(left)
	generation, err2 := strconv.Atoi(right)
	return index, generation, err1 == nil && err2 == nil && index >= 0
}
