package nats

// refusal are messages that the full queue did not take: all from the first to
// the last, between which it took none.
type refusal struct {
	first, last uint64
	at          int64 // of the last
}

// refusalTime is for how long refusals are known, longer than the server
// knows the ids of the messages. Of more than maxRefusals the oldest are
// forgotten before, so that a snapshot stays small.
const (
	refusalTime = int64(3 * dedupWindow)
	maxRefusals = 50_000
)

// refuse notes that a message was not taken.
func (b *book) refuse(seq uint64) {
	if n := len(b.refused); n > 0 && b.refused[n-1].last > b.taken {
		b.refused[n-1].last, b.refused[n-1].at = seq, b.now
		return
	}
	b.refused = append(b.refused, refusal{seq, seq, b.now})
	b.forget(len(b.refused) - maxRefusals)
}

// forget drops the oldest refusals.
func (b *book) forget(n int) {
	if n > 0 {
		b.forgotten = b.refused[n-1].last
		b.refused = b.refused[n:]
	}
}
