package oracle

import (
	"fmt"
	"io"
)

// A KnownDifference is RabbitMQ's own from version to version, or one that no
// promise covers. There are no others.
type KnownDifference struct {
	Name, Reason string
	// Avoided says that the generator makes no script that shows it; it counts
	// how often it went another way. Else the comparison lets it pass.
	Avoided bool
}

// The names of the known differences.
const (
	knownRedeliveredOrder = "order of redelivered"
	knownFlagPrefetched   = "redelivered, prefetched only"
	knownFlagDelayed      = "redelivered, after a delay"
	knownAttemptClassic   = "attempts of classic queues"
	knownAttemptReturned  = "attempts of messages that were prefetched only"
	knownLastDeath        = "x-last-death"
	knownDeadTogether     = "order of dead letters of several queues"
	knownActive           = "consumers of a quorum queue with one active"
	knownDeadQuorum       = "order of dead letters of a quorum queue"
	knownSettleGone       = "settling what a deleted queue delivered"
	knownSentGone         = "taking what a deleted queue had sent"
	knownDeadFlag         = "redelivered, dead letters"
	knownDeadCC           = "CC of dead letters"
	knownPlainPriority    = "priorities of plain quorum queues"
	knownQuorumBytes      = "bytes of quorum queues"
	knownReturning        = "purging what is on its way back"
	knownLateEnd          = "closing after delayed attempts"
	knownLazy             = "prefetch of three to some"
	knownShared           = "consumers that share a queue"
	knownHeaderNumbers    = "headers exchange: numbers and times"
	knownPartial          = "reading a part of what was returned"
	knownRejectQuorum     = "reject-publish of quorum queues"
	knownNowhere          = "dead letters with nowhere to go"
	knownExclusiveAgain   = "declaring another's queue exclusive"
)

// Known is every known difference, in one place.
var Known = []KnownDifference{
	{knownRedeliveredOrder, "promise 6 exempts redelivered messages: classic queues put them where they were, quorum queues behind what is there (3.x) or before it in the order of their return (4.x)", false},
	{knownFlagPrefetched, "RabbitMQ marks what was sent to a consumer, though nobody took it from the library; Redelivered says only that the message may have been delivered before", false},
	{knownFlagDelayed, "a Nack with a delay is a copy on RabbitMQ, which its broker has not delivered before", false},
	{knownAttemptClassic, "classic queues do not count (promise 15): Attempt is 0 on RabbitMQ and counts elsewhere", false},
	{knownAttemptReturned, "RabbitMQ before 4.3 counts what was prefetched and given back (Features.CountsReturned)", false},
	{knownLastDeath, "RabbitMQ from 3.13 on adds the headers x-last-death-*, which tell nothing that x-death does not", false},
	{knownDeadTogether, "messages that die in several queues, or come there through several, arrive in any order, also on RabbitMQ", false},
	{knownActive, "a quorum queue with a single active consumer counts that one, the others wait unseen; Inspect elsewhere counts all", false},
	{knownDeadQuorum, "what dies together in a quorum queue arrives in any order, also on RabbitMQ: its letters are sent side by side", false},
	{knownSettleGone, "what a deleted queue had delivered is no more: RabbitMQ takes any settlement, polymq may say ErrLost", false},
	{knownSentGone, "what a queue had sent before it was deleted, and nobody had taken yet, RabbitMQ's client hands out, polymq need not", false},
	{knownDeadFlag, "RabbitMQ 4.x marks a dead letter as delivered before where it was so in the queue in which it died", false},
	{knownDeadCC, "RabbitMQ 4.x leaves the header CC in a dead letter that a DeadLetterKey leads, though it does not route by it", false},
	{knownPlainPriority, "quorum queues of 4.x mind Message.Priority also where nobody asked for priorities", true},
	{knownQuorumBytes, "quorum queues of 4.3 count more than the bodies' bytes", true},
	{knownReturning, "what a subscriber gives back, and gets again since it has room, is ready for a moment: a Purge right behind may find it", true},
	{knownLateEnd, "RabbitMQ does not count the attempts that ended in a delay: the amqp driver sees that a message which Close gave back has none left when the next subscriber gets it, the others at once", true},
	{knownLazy, "RabbitMQ fills up a prefetch after each settlement, polymq may wait until half of it is free (promise 18 is an upper bound): scripts have one, two, or more than there are messages", true},
	{knownShared, "which of several subscribers of a queue gets a message is promised nowhere", true},
	{knownHeaderNumbers, "a headers exchange of 3.10 to 3.12 takes the integer 1 for the float 1.0, and one of 4.x matches no time at all: promise 12 is that of 4.x for numbers", true},
	{knownPartial, "which message is next after a return, or where dead letters arrive in any order, differs, so such a queue is read as a whole", true},
	{knownRejectQuorum, "a quorum queue finds out that it is full after the message that filled it, so that it takes some more than its limit: queues that refuse are classic or transient, which keep it exactly", true},
	{knownNowhere, "RabbitMQ looks for a way for a kept dead letter every three minutes", true},
	{knownExclusiveAgain, "RabbitMQ compares exclusiveness before the other fields and calls it a lock", true},
}

func printKnown(w io.Writer, t *tally) {
	for _, k := range Known {
		how := "passed"
		if k.Avoided {
			how = "avoided"
		}
		fmt.Fprintf(w, "  %6d %s  %s: %s\n", t.of(k.Name), how, k.Name, k.Reason)
	}
}
