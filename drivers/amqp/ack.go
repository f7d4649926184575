package amqp

import amqp091 "github.com/rabbitmq/amqp091-go"

// acks knows how the deliveries of one channel stand, by their tags, which
// count from 1. It sends acknowledgements together: one frame for all up to a
// tag where none before it is still held. The caller locks.
type acks struct {
	ch      *amqp091.Channel
	base    uint64 // the tag of state[0]
	state   []tagState
	held    int // not settled
	pending int // acknowledged, not sent
}

type tagState uint8

const (
	tagHeld tagState = iota
	tagAcked
	tagGone // the broker knows
)

func newAcks(ch *amqp091.Channel) *acks { return &acks{ch: ch, base: 1} }

// add takes in the next delivery.
func (a *acks) add() {
	a.state = append(a.state, tagHeld)
	a.held++
}

func (a *acks) ack(tag uint64) {
	a.state[tag-a.base] = tagAcked
	a.held--
	a.pending++
}

// gone ends a hold that the caller has told the broker about.
func (a *acks) gone(tag uint64) {
	a.state[tag-a.base] = tagGone
	a.held--
	a.trim()
}

// flush sends what is acknowledged.
func (a *acks) flush() error {
	if a.pending == 0 {
		return nil
	}
	prefix, last, n := 0, uint64(0), 0
	for prefix < len(a.state) && a.state[prefix] != tagHeld {
		if a.state[prefix] == tagAcked {
			last = a.base + uint64(prefix)
			n++
		}
		prefix++
	}
	if n > 0 {
		if err := a.ch.Ack(last, n > 1); err != nil {
			return err
		}
	}
	for i := prefix; i < len(a.state) && n < a.pending; i++ {
		if a.state[i] == tagAcked {
			if err := a.ch.Ack(a.base+uint64(i), false); err != nil {
				return err
			}
			a.state[i] = tagGone
			n++
		}
	}
	a.base += uint64(prefix)
	a.state = a.state[prefix:]
	a.pending = 0
	return nil
}

// trim drops what is gone at the front.
func (a *acks) trim() {
	n := 0
	for n < len(a.state) && a.state[n] == tagGone {
		n++
	}
	a.base += uint64(n)
	a.state = a.state[n:]
}

// next is the tag of the delivery to come.
func (a *acks) next() uint64 { return a.base + uint64(len(a.state)) }
