package mem

// distribute shares out what is ready.
func (q *queue) distribute() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.share()
}

// share gives ready messages to the consumers that have room.
func (q *queue) share() {
	for q.deal(); q.rest(); {
		q.deal()
	}
}

// rest tells the consumers whether there is anything to wake up for, and
// reports whether one that should has room by now.
func (q *queue) rest() (room bool) {
	serving := len(q.serving())
	for i, c := range q.consumers {
		if idle := q.ready.n == 0 || i >= serving; c.idle != idle {
			c.idle = idle
			room = c.in.Idle(idle) > 0 && !idle || room
		}
	}
	return room
}

// serving is the consumers that get messages: where only one is active the
// first that came.
func (q *queue) serving() []*consumer {
	if q.def.SingleActiveConsumer && len(q.consumers) > 1 {
		return q.consumers[:1]
	}
	return q.consumers
}

// deal gives each its share, in turn.
func (q *queue) deal() {
	consumers := q.serving()
	if q.ready.n == 0 || len(consumers) == 0 {
		return
	}
	if len(consumers) == 1 {
		c := consumers[0]
		for range min(c.in.Room(), q.ready.n) {
			c.share = append(c.share, q.deliver())
		}
		q.put(c)
		return
	}
	rooms := make([]int, len(consumers))
	open := 0
	for i, c := range consumers {
		if rooms[i] = c.in.Room(); rooms[i] > 0 {
			open++
		}
	}
	for open > 0 && q.ready.n > 0 {
		i := q.turn % len(consumers)
		q.turn = i + 1
		if rooms[i] == 0 {
			continue
		}
		if rooms[i]--; rooms[i] == 0 {
			open--
		}
		consumers[i].share = append(consumers[i].share, q.deliver())
	}
	for _, c := range consumers {
		q.put(c)
	}
}

func (q *queue) put(c *consumer) {
	if len(c.share) > 0 {
		q.takeBack(c.in.Put(c.share...), false)
		clear(c.share)
		c.share = c.share[:0]
	}
}
