package emulate

// The most that is held beside the prefetch.
const (
	maxAside      = 1000
	maxAsideBytes = 64 << 20
)

// spare reports whether so many bytes more may be held beside the prefetch; the
// caller holds the mutex.
func (in *Inbox) spare(size int) bool {
	return in.aside < maxAside && (in.aside == 0 || in.asideBytes+size <= maxAsideBytes)
}

// uncount takes a hold out of the prefetch, for as long as it lasts; the caller
// holds the mutex.
func (in *Inbox) uncount(d *Delivery) {
	d.aside, d.size = true, int32(len(d.Message.Body))
	in.aside++
	in.asideBytes += int(d.size)
}

// setAside takes a hold out of the prefetch, unless too many are: then it
// counts, and the subscriber may come to a stop.
func (in *Inbox) setAside(d *Delivery) bool {
	in.mu.Lock()
	if !d.held || d.aside {
		in.mu.Unlock()
		return true
	}
	if !in.spare(len(d.Message.Body)) {
		in.mu.Unlock()
		return false
	}
	in.uncount(d)
	worth := in.worth()
	in.mu.Unlock()
	if worth {
		signal(in.more)
	}
	return true
}

// takeExpired returns what was put and is expired, for the one who sees to it.
// It is held until it is settled.
func (in *Inbox) takeExpired() []*Delivery {
	in.mu.Lock()
	defer in.mu.Unlock()
	ds := in.gone
	in.gone = nil
	return ds
}
