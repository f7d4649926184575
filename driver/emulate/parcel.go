package emulate

import "github.com/polymq/polymq/driver"

// Parcel is one message on its way to one queue.
type Parcel struct {
	Queue *Queue
	// Publishing holds the message and the ID that the consumer sees; the
	// store reads them only, and only until Done.
	Publishing *driver.Publishing
	// DedupID is what the queue deduplicates by. It is Publishing.ID but for
	// messages that the emulation moves: those keep their ID, and must not be
	// taken for the copy that the target queue got when they were published.
	DedupID string
	// Exchange is where the message was published.
	Exchange string
	// Retry says that an earlier try had an unknown outcome.
	Retry bool

	done  parcelOwner
	tries int // failed ones; the owner's
}

// Level is the priority that the message has in the queue: 0 where that has
// none.
func (p *Parcel) Level() int { return min(int(p.Publishing.Message.Priority), p.Queue.MaxPriority) }

type parcelOwner interface {
	parcelDone(p *Parcel, err error)
	abandoned() bool
}

// Done tells the parcel's outcome, once; see Store.Append. Safe to call on any
// goroutine; it does not block and calls nothing of the store.
func (p *Parcel) Done(err error) { p.done.parcelDone(p, err) }

// Abandoned reports that nobody waits for the outcome any more, so that it
// need not be sent.
func (p *Parcel) Abandoned() bool { return p.done.abandoned() }
