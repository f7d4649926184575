package polymqtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// Unsettled is the error of Settled when ctx ends first: what is missing.
type Unsettled struct {
	Publishing int                         // messages without an outcome
	Held       []*polymq.Delivery          // handed out and not settled
	Queues     map[string]polymq.QueueInfo // queues that are not empty
	Pending    []string                    // "message in queue" of confirmed messages that nobody has settled
	Err        error                       // ctx's, or of what hindered the look
}

func (e *Unsettled) Error() string {
	var parts []string
	if e.Publishing > 0 {
		parts = append(parts, fmt.Sprintf("%d messages are being published", e.Publishing))
	}
	for _, d := range e.Held {
		parts = append(parts, fmt.Sprintf("message %s of %q is delivered (attempt %d) and not settled", d.ID, d.Queue, d.Attempt))
	}
	for _, q := range slices.Sorted(maps.Keys(e.Queues)) {
		parts = append(parts, fmt.Sprintf("queue %q has %d ready and %d unsettled messages, and %d subscribers", q, e.Queues[q].Ready, e.Queues[q].Unsettled, e.Queues[q].Consumers))
	}
	for _, p := range e.Pending {
		parts = append(parts, "not settled: "+p)
	}
	const most = 10
	if more := len(parts) - most; more > 0 {
		parts = append(parts[:most], fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("polymqtest: not settled: %v: %s", e.Err, strings.Join(parts, "; "))
}

// Unwrap is Err.
func (e *Unsettled) Unwrap() error { return e.Err }

func (e *Unsettled) settled() bool {
	return e.Publishing == 0 && len(e.Held) == 0 && len(e.Queues) == 0 && len(e.Pending) == 0
}

// lookMin is the shortest pause between looks at the queues while no event
// comes. The longest is a tenth of what has passed since the last: so waiting
// for days of virtual time takes some hundred looks.
const lookMin = 5 * time.Millisecond

// delayedQueue is where messages with a Delay wait, on NATS, Redis and in memory.
const delayedQueue = "polymq.delayed"

// Settled waits until nothing is left to happen to the messages of conn's
// namespace: no publish is without its outcome, no delivery unsettled, and no
// queue holds a message, but for the resting ones, in which messages come to
// rest because nobody consumes them: dead-letter queues above all. It looks
// again at each event of the recorder's connections, and now and then for what
// happens without one. What was dead-lettered or is delayed is on its way until
// it has come to rest. On RabbitMQ conn needs the management option, and since
// its counts are late there, a message counts as on its way until each queue
// that the bindings lead it to, as they stand now, has had it settled, unless
// the queue or message can end it by itself; but behind exchanges of registered
// kinds, where the counts alone tell. A dead letter of the last moment can be on
// its way to a resting queue there.
//
// When ctx ends first the error is an *Unsettled, which says what is missing.
func (r *Recorder) Settled(ctx context.Context, conn *polymq.Conn, resting ...string) error {
	var missing *Unsettled
	clean, last := -1, time.Now()
	for {
		changed, events := r.next()
		now, err := r.look(ctx, conn, resting)
		switch {
		case err == nil && now.settled() && clean == events:
			return nil // twice, and nothing happened in between
		case err == nil && now.settled():
			clean = events
			missing = now
			continue
		case err == nil:
			clean, missing = -1, now
		case ctx.Err() == nil:
			return err
		}
		timer := time.NewTimer(max(lookMin, time.Since(last)/10))
		select {
		case <-changed:
			last = time.Now()
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if missing == nil {
				missing = &Unsettled{}
			}
			missing.Err = context.Cause(ctx)
			return missing
		}
		timer.Stop()
	}
}

// next is what ends with the next event, and how many there were.
func (r *Recorder) next() (<-chan struct{}, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed, r.events
}

// look says what is missing now.
func (r *Recorder) look(ctx context.Context, conn *polymq.Conn, resting []string) (*Unsettled, error) {
	top, err := conn.Topology(ctx)
	if err != nil {
		return nil, err
	}
	out := &Unsettled{Queues: map[string]polymq.QueueInfo{}}
	names := []string{delayedQueue}
	for _, q := range top.Queues {
		names = append(names, q.Name)
	}
	for _, q := range names {
		if slices.Contains(resting, q) {
			continue
		}
		info, err := conn.Inspect(ctx, q)
		if errors.Is(err, polymq.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if info.Ready > 0 || info.Unsettled > 0 {
			out.Queues[q] = info
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out.Publishing = r.publishing
	for d := range r.held {
		if r.inFlight[d.Queue] <= 0 && !d.Settled() { // given back; of one whose settlement has begun an event is yet to come
			delete(r.held, d)
			continue
		}
		out.Held = append(out.Held, d)
	}
	if conn.Features().Support[polymq.FeatureRouting] == polymq.SupportNative {
		out.Pending, err = r.pending(top, resting)
	}
	return out, err
}

// pending are the messages that a queue must have had and nobody has settled
// there. Called with the mutex held.
func (r *Recorder) pending(top routing.Topology, resting []string) ([]string, error) {
	table, err := routing.NewTable(plain(top))
	if err != nil {
		return nil, err
	}
	type place struct{ id, queue string }
	done := map[place]bool{}
	for _, s := range r.settled {
		if s.Outcome != polymq.OutcomeNack {
			done[place{s.ID, s.Queue}] = true
		}
	}
	var out []string
	for _, p := range r.published {
		queues, err := table.Route(nil, p.exchange, p.message.Key, p.message.Header)
		if err != nil {
			continue // the exchange is gone
		}
		for _, name := range queues {
			q, _ := table.Queue(name)
			if p.message.TTL > 0 || endsByItself(q) || slices.Contains(resting, name) || done[place{p.id, name}] {
				continue
			}
			out = append(out, fmt.Sprintf("message %s in %q", p.id, name))
		}
	}
	return out, nil
}

// plain is a topology without exchanges of registered kinds, as the broker alone
// knows which way a message takes through one.
func plain(top routing.Topology) routing.Topology {
	custom := map[string]bool{}
	for _, x := range top.Exchanges {
		custom[x.Name] = x.Kind.Custom()
	}
	return routing.Topology{
		Exchanges: slices.DeleteFunc(slices.Clone(top.Exchanges), func(x routing.Exchange) bool { return x.Kind.Custom() }),
		Queues:    top.Queues,
		Bindings:  slices.DeleteFunc(slices.Clone(top.Bindings), func(b routing.Binding) bool { return custom[b.Exchange] || custom[b.ToExchange] }),
	}
}

// endsByItself reports whether a message can leave the queue without a
// settlement.
func endsByItself(q routing.Queue) bool {
	return q.TTL > 0 || q.MaxLength > 0 || q.MaxBytes > 0 || q.MaxAttempts > 0
}
