package polymqtest

import (
	"context"
	"sync"

	"github.com/polymq/polymq"
)

// Recorder is a polymq.Observer that remembers what its connections did. It is
// safe for concurrent use.
type Recorder struct {
	mu         sync.Mutex
	changed    chan struct{} // closed by the next event
	events     int
	publishing int
	published  []published
	inFlight   map[string]int // deliveries by queue
	held       map[*polymq.Delivery]struct{}
	settled    []Settlement
}

// published is a confirmed message.
type published struct {
	exchange string
	message  polymq.Message
	id       string
}

// Settlement is what became of a delivery.
type Settlement struct {
	ID      string         // of the message
	Queue   string         // that it was delivered from
	Attempt int            // as Delivery.Attempt
	Outcome polymq.Outcome // how it was settled
}

var _ polymq.Observer = (*Recorder)(nil)

// NewRecorder makes a recorder, for Options.Observers of any number of
// connections.
func NewRecorder() *Recorder {
	return &Recorder{changed: make(chan struct{}), inFlight: map[string]int{}, held: map[*polymq.Delivery]struct{}{}}
}

// Observe makes the hooks of a connection. Open and NewConn call it.
func (r *Recorder) Observe(polymq.ConnInfo) *polymq.Hooks {
	return &polymq.Hooks{
		PublishBegin: func(ctx context.Context, e polymq.PublishEvent) context.Context {
			r.event(func() { r.publishing += len(e.Messages) })
			return ctx
		},
		PublishEnd: func(_ context.Context, e polymq.PublishEvent) {
			r.event(func() {
				r.publishing -= len(e.Messages)
				for _, m := range e.Messages {
					if m.Err == nil {
						r.published = append(r.published, published{e.Exchange, *m.Message, m.ID})
					}
				}
			})
		},
		Receive: func(_ context.Context, e polymq.ReceiveEvent) {
			r.event(func() {
				r.inFlight[e.Queue] += len(e.Deliveries)
				for _, d := range e.Deliveries {
					r.held[d] = struct{}{}
				}
			})
		},
		Settle: func(_ context.Context, e polymq.SettleEvent) {
			d := e.Delivery
			r.event(func() {
				if e.Done {
					r.inFlight[d.Queue]--
				}
				if d.Settled() {
					delete(r.held, d)
				}
				if e.Err == nil {
					r.settled = append(r.settled, Settlement{d.ID, d.Queue, d.Attempt, e.Outcome})
				}
			})
		},
		Release: func(e polymq.ReleaseEvent) {
			r.event(func() { r.inFlight[e.Queue] -= e.Count })
		},
	}
}

func (r *Recorder) event(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	r.events++
	close(r.changed)
	r.changed = make(chan struct{})
}

// Published are the messages that were confirmed, in the order of their
// confirmation: copies, with the IDs that they had or were given.
func (r *Recorder) Published() []polymq.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]polymq.Message, len(r.published))
	for i, p := range r.published {
		out[i] = p.message
		out[i].ID = p.id
	}
	return out
}

// Settlements are what became of the deliveries of a queue, in order; of all
// queues where it is "". Those that failed are not among them.
func (r *Recorder) Settlements(queue string) []Settlement {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Settlement
	for _, s := range r.settled {
		if queue == "" || s.Queue == queue {
			out = append(out, s)
		}
	}
	return out
}
