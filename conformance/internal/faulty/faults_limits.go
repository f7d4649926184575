package faulty

import (
	"context"
	"crypto/rand"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// held reports whether any subscriber of the driver holds something.
func (d *Driver) held() bool {
	for _, s := range d.subscribers() {
		if len(s.unsettled()) > 0 {
			return true
		}
	}
	return false
}

// refusing is a publish hook that refuses some messages.
func refusing(which func(p *publisher, b *driver.Publishing) bool) func(context.Context, *publisher, []*driver.Publishing, bool) {
	return func(ctx context.Context, p *publisher, batch []*driver.Publishing, _ bool) {
		for _, b := range batch {
			if which(p, b) {
				b.Resolve(driver.ErrRejected)
			} else {
				p.Publisher.Publish(ctx, []*driver.Publishing{b}, true)
			}
		}
	}
}

var limitFaults = []Fault{
	{Name: "takes what there is no room for", Promise: 2, Row: "full", declare: queues(func(q *routing.Queue) { q.Overflow = "" })},
	{Name: "reports what was refused as stored", Promise: 2, Row: "full", publish: reporting(func(_ *driver.Publishing, err error) error {
		if is(err, driver.ErrRejected) {
			return nil
		}
		return err
	})},
	{Name: "keeps from the others what one refuses", Promise: 2, Row: "full", publish: refusing(func(p *publisher, _ *driver.Publishing) bool {
		info, err := p.c.Conn.Inspect(context.Background(), "q")
		return err == nil && info.Ready >= 2
	})},
	{Name: "takes twice as much where it is durable", Promise: 2, Row: "full-durable", declare: queues(func(q *routing.Queue) {
		if !q.Transient {
			q.MaxLength *= 2
		}
	})},
	{Name: "has room for twice the bytes", Promise: 2, Row: "full-bytes", declare: queues(func(q *routing.Queue) { q.MaxBytes *= 2 })},
	{Name: "has room for half the bytes", Promise: 2, Row: "full-bytes", declare: queues(func(q *routing.Queue) { q.MaxBytes /= 2 })},
	{Name: "takes what is held for room that is used", Promise: 2, Row: "full-but-held", publish: refusing(func(p *publisher, _ *driver.Publishing) bool { return p.c.d.held() })},
	{Name: "takes what it refused for stored", Promise: 2, Row: "refused-again", publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		instead(func(p *publisher, _ driver.Message, id string) bool { return id == "second" && p.c.d.seen(id) })(ctx, p, batch, wait)
	}},
	{Name: "does not deduplicate by priority", Promise: 2, Row: "same-id-by-rules", publish: changing(func(m *driver.Message, id *string) {
		if m.Priority > 0 {
			m.ID, *id = "", rand.Text()
		}
	})},

	{Name: "drops what was held and is beyond the limit", Promise: 10, Row: "held-beyond-limit", declare: queues(func(q *routing.Queue) { q.Overflow = "" })},

	{Name: "knows no limits", Promise: 17, Row: "overflow-dropped", declare: queues(func(q *routing.Queue) { q.MaxLength, q.MaxBytes = 0, 0 })},
	{Name: "drops what is new", Promise: 17, Row: "overflow-dropped", declare: queues(func(q *routing.Queue) { q.Overflow = routing.RejectPublish }), publish: reporting(func(*driver.Publishing, error) error { return nil })},
	{Name: "drops what should be a dead letter", Promise: 17, Row: "overflow-dead-letter", declare: queues(func(q *routing.Queue) {
		if q.MaxLength > 0 {
			q.DeadLetterExchange, q.DeadLetterKey = "", ""
		}
	})},
	{Name: "calls what overflowed expired", Promise: 17, Row: "overflow-dead-letter", receive: dying(func(death map[string]any) { death["reason"] = "expired" })},
	{Name: "counts more than bodies", Promise: 17, Row: "overflow-bytes", declare: queues(func(q *routing.Queue) { q.MaxBytes /= 2 })},
	{Name: "lets what is held push others out", Promise: 17, Row: "overflow-but-held", publish: instead(func(p *publisher, _ driver.Message, _ string) bool { return p.c.d.held() })},
	{Name: "keeps whatever is given back", Promise: 17, Row: "overflow-given-back", declare: queues(func(q *routing.Queue) { q.MaxLength *= 2 })},
}
