package polymq

import "sync"

// lanes keep deliveries of one key in the order in which they arrived, one at a
// time, while those of others go past. Who handles one goes on with what has
// gathered behind it, so that no worker waits for a key; what gathers is bounded
// by the prefetch.
type lanes struct {
	key  func(*Delivery) string
	turn chan struct{} // cap 1: held from receiving to entering, so that the order of both is the same

	mu   sync.Mutex
	busy map[string][]*Delivery // what waits, by keys of which one is being handled
}

// enter takes the next delivery; nil where one of its key is being handled.
func (l *lanes) enter(receive func() (*Delivery, error)) (d *Delivery, key string, err error) {
	l.turn <- struct{}{} // whoever has it gives it back when receiving ends
	defer func() { <-l.turn }()
	if d, err = receive(); err != nil {
		return nil, "", err
	}
	key = l.key(d)
	l.mu.Lock()
	defer l.mu.Unlock()
	if waiting, busy := l.busy[key]; busy {
		l.busy[key] = append(waiting, d)
		return nil, "", nil
	}
	l.busy[key] = nil
	return d, key, nil
}

// next is what waits behind the delivery of key that was handled; nil where
// nothing does, or no more is to be begun.
func (l *lanes) next(key string, end bool) *Delivery {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := l.busy[key]
	switch {
	case end: // what waits stays behind, and is given back by Close
		return nil
	case len(waiting) == 0:
		delete(l.busy, key)
		return nil
	}
	l.busy[key] = waiting[1:]
	return waiting[0]
}
