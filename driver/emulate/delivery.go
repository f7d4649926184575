package emulate

import (
	"time"

	"github.com/polymq/polymq/driver"
)

// Delivery is a message in an inbox: what the application sees, and what the
// store needs to settle it.
type Delivery struct {
	driver.Delivery

	// Stored is when the queue stored the message, by the broker's clock: the
	// same each time it is delivered.
	Stored time.Time
	// Reason is why Sweep returned it.
	Reason Reason

	// The store's own. Seq and the message's ID must tell the message from all
	// others that its queue ever had, and be the same each time it is
	// delivered.
	Seq, Gen uint64
	Ref      any

	// Guarded by the inbox's mutex.
	prev, next *Delivery
	handed     bool
	held       bool
	expired    bool      // put, and not for handing out
	aside      bool      // held, and not counted in the prefetch
	size       int32     // of the body, if aside; small, since there are many
	until      time.Time // the hold is lost then, where leases end
}
