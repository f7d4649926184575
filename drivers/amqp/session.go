package amqp

import (
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// session is the life of one confirming channel.
type session struct {
	conn    *amqp091.Connection
	wire    *wire
	ch      *amqp091.Channel
	returns chan amqp091.Return
	closed  chan *amqp091.Error
	check   *channel
	known   map[string]bool // exchanges that were there
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
	o.next = &session{conn: conn, wire: w}
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
		o.mu.Lock()
		s, next := o.session, o.next
		stuck := s != nil && o.nacks >= maxNacks && time.Since(o.nacked) > nackPeriod
		o.mu.Unlock()
		if stuck {
			s.ch.Close()
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
			o.session, o.nacks = next, 0
			o.mu.Unlock()
		}
		o.pump()
	}
}
