package emulate

import "github.com/polymq/polymq/driver"

// Parcel is one message on its way to one queue.
type Parcel struct {
	Queue *Queue
	// Publishing holds the message and its ID; the store reads them only, and
	// only until Done.
	Publishing *driver.Publishing
	// Exchange is where the message was published.
	Exchange string
	// Retry says that an earlier try had an unknown outcome.
	Retry bool

	done parcelOwner
}

type parcelOwner interface{ parcelDone(p *Parcel, err error) }

// Done tells the parcel's outcome, once; see Store.Append. Safe to call on any
// goroutine; it does not block.
func (p *Parcel) Done(err error) { p.done.parcelDone(p, err) }

// Abandoned reports that nobody waits for the outcome any more, so that it
// need not be sent.
func (p *Parcel) Abandoned() bool { return p.Publishing.Resolved() }
