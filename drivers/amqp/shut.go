package amqp

import (
	"errors"
	"strings"
	"time"

	"github.com/polymq/polymq/driver"
)

// way is where a mover publishes to: an exchange by a key, or with any.
type way struct {
	exchange, key string
	any           bool
}

// shut are the ways that a mover knows not to work: its user may not, or
// nothing ever confirms. What is for them is put by without asking the broker,
// but for one message after each pause.
type shut map[way]*pausing

type pausing struct {
	until time.Time
	pause time.Duration // the next
}

const minShut, maxShut = 2 * time.Second, time.Minute

// closed reports whether w is shut, and is not to be tried.
func (s shut) closed(w way, now time.Time) bool {
	if len(s) == 0 {
		return false
	}
	for _, of := range [...]way{{exchange: w.exchange, any: true}, w} {
		switch p := s[of]; {
		case p == nil:
		case now.Before(p.until):
			return true
		default: // this one tries
			p.until, p.pause = now.Add(p.pause), min(2*p.pause, maxShut)
		}
	}
	return false
}

// failed takes in how a try went; first says that w was not shut before. What
// was sent together fails together, and is one failure.
func (s shut) failed(w way, err error, now time.Time) (first bool) {
	if errors.Is(err, driver.ErrPermission) && !strings.Contains(err.Error(), "access to topic") {
		w = way{exchange: w.exchange, any: true}
	}
	p := s[w]
	if first = p == nil; first {
		p = &pausing{pause: minShut}
		s[w] = p
	}
	if p.until.Before(now) {
		p.until = now.Add(p.pause)
	}
	return first
}

func (s shut) worked(w way) {
	if len(s) > 0 {
		delete(s, w)
		delete(s, way{exchange: w.exchange, any: true})
	}
}

// prune forgets ways that nobody has tried for long.
func (s shut) prune(now time.Time) {
	for w, p := range s {
		if now.Sub(p.until) > 2*maxShut {
			delete(s, w)
		}
	}
}
