package amqp

import (
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// session is the life of one confirming channel.
type session struct {
	conn      *amqp091.Connection
	connected time.Time
	first     bool // the connection is the outbox's first
	wire      *wire
	ch        *amqp091.Channel
	returns   chan amqp091.Return
	closed    chan *amqp091.Error
	check     *channel
	known     map[string]bool // exchanges that were there
	hopped    bool            // it was ended for another channel
}

// maxReturns is more than one read of amqp091's 4 KiB buffer can hold.
const maxReturns = 256

func (s *session) open() error {
	ch, err := s.conn.Channel()
	if err != nil {
		return err
	}
	s.returns = ch.NotifyReturn(make(chan amqp091.Return, maxReturns))
	s.closed = ch.NotifyClose(make(chan *amqp091.Error, 1))
	if err := ch.Confirm(false); err != nil {
		ch.Close()
		return err
	}
	s.ch = ch
	s.check = &channel{conn: s.conn}
	s.known = map[string]bool{"": true, "amq.direct": true, "amq.fanout": true, "amq.topic": true, "amq.headers": true, "amq.match": true}
	return nil
}

func (o *outbox) prepare(w *wire) {
	w.onRead = o.sweep
	w.onRoom = func() { signal(o.wake) }
}

func (o *outbox) connected(conn *amqp091.Connection, w *wire) {
	o.frame.Store(int64(conn.Config.FrameSize))
	o.mu.Lock()
	o.next = &session{conn: conn, connected: time.Now(), first: !o.connects, wire: w}
	o.connects = true
	o.nacks.refusing = nil // a restarted broker's queues may need their moment
	o.mu.Unlock()
	signal(o.wake)
}

// run is the outbox's goroutine.
func (o *outbox) run() {
	var closed chan *amqp091.Error
	var again <-chan time.Time
	for {
		select {
		case <-o.wake:
		case <-again:
		case err := <-closed:
			closed = nil
			o.ended(err)
		case <-o.c.ctx.Done():
			return
		}
		again = nil
		now := time.Now()
		o.mu.Lock()
		s, next := o.session, o.next
		due, later := o.nacks.take(now)
		for _, it := range due {
			o.push(it)
		}
		judge := len(o.nacks.doubts) > 0 && !o.nacks.judging
		stuck := s != nil && o.nacks.stuck()
		switch {
		case !stuck:
			o.nacks.drain = time.Time{}
		case o.nacks.drain.IsZero():
			o.nacks.drain = now.Add(drainTime)
		}
		hopping, leave := false, false
		if s != nil {
			hopping, leave = o.hopping(now, len(due) > 0)
		}
		untold := o.nacks.hop.untold
		o.nacks.hop.untold = false
		drained := len(o.flight) == 0 || now.After(o.nacks.drain)
		o.mu.Unlock()
		if !later.IsZero() {
			again = time.After(later.Sub(now))
		}
		if untold {
			o.c.cfg.Logger.Warn("polymq: a queue that refuses nothing did not take a message, which is sent again: the queue may have no leader for now", "scheme", "amqp")
		}
		if judge && o.c.begin() == nil { // else they are about to be resolved
			o.mu.Lock()
			o.nacks.judging = true
			o.mu.Unlock()
			go func() {
				defer o.c.tasks.Done()
				o.judge()
			}()
		}
		if stuck {
			if drained {
				o.mu.Lock()
				o.nacks.reopened++
				o.nacks.row = 0 // counted once, however often this goroutine wakes until its end is told
				o.mu.Unlock()
				s.ch.Close()
			} else {
				again = time.After(minPause)
			}
			continue
		}
		if leave {
			closed = nil
			o.leave(s)
			continue
		}
		if hopping {
			again = time.After(nackPause / 10)
			continue
		}
		if s == nil && next != nil {
			if err := next.open(); err != nil {
				if !next.conn.IsClosed() {
					o.c.cfg.Logger.Warn("polymq: no channel to publish on", "scheme", "amqp", "error", err)
					again = time.After(minPause)
				}
				continue
			}
			closed = next.closed
			o.mu.Lock()
			o.session = next
			o.nacks.row, o.nacks.drain, o.nacks.hop.hold = 0, time.Time{}, time.Time{}
			delayed := o.delayed()
			o.mu.Unlock()
			for _, s := range delayed {
				o.c.schedule(s)
			}
		}
		o.hurry(now)
		o.pump()
		if end := o.hurry(now); !end.IsZero() && (later.IsZero() || end.Before(later)) {
			again = time.After(end.Sub(now))
		}
	}
}

// hopping ends the channel where a hop is due and nothing is in flight, or it has been
// waited for that for long enough, and reports whether the outbox waits for that; due
// says that something is to be tried again. Leave says that the broker takes its time
// to end it: one of its channels hangs for seconds where it asks a dead node. The
// caller holds the mutex.
func (o *outbox) hopping(now time.Time, due bool) (wait, leave bool) {
	h, s := &o.nacks.hop, o.session
	if s.hopped {
		return true, now.After(h.hold)
	}
	switch {
	case h.hold.IsZero():
		if !due || !h.due(now) || o.careful > 0 || o.solo || s.ch.IsClosed() {
			return false, false
		}
		h.begin(now)
	case len(o.flight) > 0 && h.miss(now):
		return false, false
	}
	if len(o.flight) > 0 && !now.After(h.hold) {
		return true, false
	}
	s.hopped, h.missed = true, 0
	h.over(now)
	h.hold = now.Add(holdTime)
	o.c.tasks.Go(func() { s.ch.Close() })
	return true, false
}

// leave goes on without the end of the channel.
func (o *outbox) leave(s *session) {
	o.ended(nil)
	o.mu.Lock()
	returns := s.returns
	o.mu.Unlock()
	if returns != nil {
		o.c.tasks.Go(func() {
			for range returns { // else they would hold up the connection
			}
		})
	}
}
