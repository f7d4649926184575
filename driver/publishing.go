package driver

import "sync/atomic"

// Publishing is one message on its way. The caller of Publisher.Publish owns
// it and learns the outcome through Owner; the driver resolves it once.
type Publishing struct {
	// Message must not be changed by the driver, nor read once the
	// publishing is resolved.
	Message *Message
	// ID is the message's ID, or a generated one where it has none. Every try
	// carries the same.
	ID string
	// Dedup is what queues deduplicate by where it is not the ID: a message
	// that is published once more on purpose, under its own ID.
	Dedup string
	// Owner hears of the outcome. Never nil.
	Owner Owner

	state atomic.Uint32
	err   error
}

// Owner is told when a publishing is resolved, on whichever goroutine
// resolves it; it must not block.
type Owner interface{ Resolved(*Publishing) }

const (
	pending = iota
	resolving
	resolved
)

// Resolve settles the outcome: nil for confirmed, else an error that wraps one
// of the sentinels of this package. The first call wins and reports true.
// Safe for concurrent use.
func (p *Publishing) Resolve(err error) bool {
	if !p.state.CompareAndSwap(pending, resolving) {
		return false
	}
	p.err = err
	p.state.Store(resolved)
	p.Owner.Resolved(p)
	return true
}

// Resolved reports whether the outcome is known. A driver asks before it tries
// again: the caller may have given up with ErrUnconfirmed.
func (p *Publishing) Resolved() bool { return p.state.Load() == resolved }

// Err is the outcome; it is meaningful only once Resolved reports true.
func (p *Publishing) Err() error {
	if p.Resolved() {
		return p.err
	}
	return nil
}

// Reset makes a resolved publishing ready for another message.
func (p *Publishing) Reset(m *Message, id string) {
	p.Message, p.ID, p.Dedup, p.err = m, id, "", nil
	p.state.Store(pending)
}
