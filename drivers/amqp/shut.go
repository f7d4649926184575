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
	why   error
}

const minShut, maxShut = 2 * time.Second, time.Minute

// closed is why w is shut; nil where it is not, or where w is to be tried.
func (s shut) closed(w way, now time.Time) error {
	if len(s) == 0 {
		return nil
	}
	for _, of := range [...]way{{exchange: w.exchange, any: true}, w} {
		if p := s[of]; p == nil {
			continue
		} else if now.Before(p.until) {
			return p.why
		} else {
			p.until = now.Add(p.pause) // this one tries
		}
	}
	return nil
}

// failed takes in how a try went; first says that w was not shut before.
func (s shut) failed(w way, err error, now time.Time) (first bool) {
	if errors.Is(err, driver.ErrPermission) && !strings.Contains(err.Error(), "access to topic") {
		w = way{exchange: w.exchange, any: true}
	}
	p := s[w]
	if first = p == nil; first {
		p = &pausing{pause: minShut}
		s[w] = p
	}
	p.until, p.pause, p.why = now.Add(p.pause), min(2*p.pause, maxShut), err
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
