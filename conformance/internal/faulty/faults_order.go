package faulty

import (
	"context"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// undrained is a drain hook that does nothing.
func undrained(context.Context, *subscriber) error { return nil }

var orderFaults = []Fault{
	{Name: "ignores priorities", Promise: 6, Row: "priorities", declare: queues(func(q *routing.Queue) { q.MaxPriority = 0 })},
	{Name: "knows two priorities", Promise: 6, Row: "priorities", declare: queues(func(q *routing.Queue) { q.MaxPriority = min(q.MaxPriority, 1) })},
	{Name: "loses priorities", Promise: 6, Row: "priorities", receive: delivering(func(d *driver.Delivery) { d.Message.Priority = 0 })},
	{Name: "takes too high a priority for none", Promise: 6, Row: "priorities", publish: changing(func(m *driver.Message, _ *string) {
		if m.Priority > 9 {
			m.Priority = 0
		}
	})},
	{Name: "gives back without the priority", Promise: 6, Row: "priority-given-back", settle: again(func(s *subscriber, d *driver.Delivery) {
		m := d.Message
		m.Key, m.Priority = d.Queue, 0
		_ = aside(s.c.Conn, "", m, m.ID+" again")
	})},
	{Name: "heeds priorities where there are none", Promise: 6, Row: "no-priorities", declare: queues(func(q *routing.Queue) { q.MaxPriority = 9 })},
	{Name: "drops the oldest of a priority queue", Promise: 6, Row: "priority-overflow", declare: queues(func(q *routing.Queue) { q.MaxPriority = 0 })},

	{Name: "makes every consumer active", Promise: 14, Row: "single-active", declare: queues(func(q *routing.Queue) { q.SingleActiveConsumer = false })},
	{Name: "does not hand over", Promise: 14, Row: "single-active", closeSub: undrained},
	{Name: "keeps a paused subscriber active", Promise: 14, Row: "single-active-pauses", drain: undrained},
	{Name: "does not hand over from the dead", Promise: 14, Row: "single-active-killed", receive: deaf(func(s *subscriber, _ error) bool { return s.c.d.killed() })},
	{Name: "forgets its queues' rules at a restart", Promise: 10, Row: "rules", declare: queues(func(q *routing.Queue) { q.MaxPriority, q.MaxLength, q.Overflow = 0, 0, "" }),
		verify: func(context.Context, driver.Conn, routing.Topology) error { return nil }},

	{Name: "takes more during a pause", Promise: 19, Row: "pause", drain: undrained},
	{Name: "lets go of what is held at a pause", Promise: 19, Row: "pause", drain: func(ctx context.Context, s *subscriber) error { return s.Subscriber.Close(ctx) }},
	{Name: "takes more during a pause of Run", Promise: 19, Row: "pause-under-run", drain: undrained},
}
