package nats

import (
	"time"

	"github.com/polymq/polymq/driver/emulate"
)

// kept is a delivery of a kept queue.
type kept struct {
	emulate.Delivery
	put   bool      // into the inbox
	until time.Time // the inbox holds it no longer than that
}

// give notes a delivery. The caller holds the mutex.
func (m *member) give(e *entry) {
	k := &kept{}
	k.Seq, k.Gen, k.Ref = e.seq, e.gen, k
	k.Stored = time.Unix(0, e.stored)
	k.Attempt, k.Redelivered = e.failed+1, e.gen > 1
	k.Delivery.Queue = m.l.q.Name
	m.holds[e.seq] = k
	m.due = append(m.due, k)
	signal(m.more)
}

// atOnce is how many messages are read at once.
const atOnce = 256

// bring reads the messages of what is due and puts them into the inbox.
func (m *member) bring() {
	l := m.l
	for m.ctx.Err() == nil {
		l.mu.Lock()
		n := min(len(m.due), atOnce)
		if late := m.joined && time.Now().After(m.until); n > 0 && late { // others may have it by now
			l.mu.Unlock()
			if wait(m.ctx, 20*time.Millisecond) != nil {
				return
			}
			continue
		}
		batch := m.due[:n:n]
		m.due = m.due[n:]
		l.mu.Unlock()
		if n == 0 {
			return
		}
		seqs := make([]uint64, n)
		for i, k := range batch {
			seqs[i] = k.Seq
		}
		msgs, err := l.s.fetch(m.ctx, l.h, seqs)
		if err != nil {
			if m.ctx.Err() == nil && l.ctx.Err() == nil {
				l.s.cfg.Logger.Warn("nats: messages cannot be read", "queue", l.q.Name, "error", err)
			}
			l.mu.Lock()
			m.due = append(batch, m.due...)
			l.mu.Unlock()
			if l.ctx.Err() != nil || wait(m.ctx, 50*time.Millisecond) != nil {
				return
			}
			continue
		}
		l.mu.Lock()
		for i, k := range batch {
			if m.holds[k.Seq] != k {
				continue // lost meanwhile
			}
			if msgs[i] == nil { // deleted by somebody else
				m.settled(k, deed{Do: doAck})
				continue
			}
			if err := read(&k.Delivery.Delivery, msgs[i]); err != nil {
				l.s.cfg.Logger.Warn("nats: a property of a message cannot be read and is left out", "queue", l.q.Name, "sequence", k.Seq, "error", err)
			}
			over := m.in.Put(&k.Delivery)
			k.put, k.until = true, time.Now().Add(m.lease())
			if len(over) > 0 {
				m.limit = -1 // as if never told
				m.tellLimit()
				m.settled(k, deed{Do: doBack})
			}
		}
		l.mu.Unlock()
	}
}
