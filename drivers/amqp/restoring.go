package amqp

import (
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/routing"
)

// restoring is what a Conn's connections know together of what is to be made anew.
type restoring struct {
	// turn is had by the connection that restores: the other would take what that one
	// has begun for what the broker has kept, and be used before the rest stands.
	turn chan struct{} // cap 1
	// all says that the broker had lost everything, and that not all of it was made
	// anew since, the connection having been lost meanwhile; of whoever has the turn.
	all bool

	mu   sync.Mutex
	age  time.Duration        // of a queue that a killed broker does not half forget
	at   map[string]time.Time // queues that only a deletion ends, and when each was first declared
	lost time.Time            // when a connection was last lost
}

// settledTime is well above what RabbitMQ takes to write a new queue down.
const settledTime = 30 * time.Second

// lock waits for the turn; false where conn has ended meanwhile.
func (r *restoring) lock(conn *amqp091.Connection) bool {
	select {
	case r.turn <- struct{}{}:
		return true
	case <-conn.NotifyClose(make(chan *amqp091.Error, 1)):
		return false
	}
}

func (r *restoring) unlock() { <-r.turn }

// declared takes in queues whose declaration began at a time. One that a loss came
// between may be half forgotten already.
func (r *restoring) declared(qs []routing.Queue, began time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !began.After(r.lost) {
		return
	}
	if r.at == nil {
		r.at = map[string]time.Time{}
	}
	for _, q := range qs {
		if _, known := r.at[q.Name]; !known && !q.Transient && !q.Exclusive && !q.AutoDelete && q.Expires == 0 {
			r.at[q.Name] = began
		}
	}
}

func (r *restoring) deleted(queue string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.at, queue)
}

// lose notes that a connection was lost: what was young then stays doubtful.
func (r *restoring) lose() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = time.Now()
	for name, at := range r.at {
		if r.lost.Sub(at) < r.age {
			delete(r.at, name)
		}
	}
}

// settled is whether one of the queues is durable and was no young one when a connection was
// last lost.
func (r *restoring) settled(qs []routing.Queue) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range qs {
		if at, known := r.at[q.Name]; known && !q.Transient && at.Before(r.lost) {
			return true
		}
	}
	return false
}
