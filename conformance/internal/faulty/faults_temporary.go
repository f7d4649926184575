package faulty

import (
	"context"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

func anybodys(q *routing.Queue) { q.Exclusive = false }

var temporaryFaults = []Fault{
	{Name: "keeps what an exclusive queue had", Promise: 21, Row: "exclusive", declare: queues(anybodys)},
	{Name: "does not bring temporary queues back", Promise: 21, Row: "temporary", receive: deaf(func(s *subscriber, _ error) bool { return s.c.d.wasSevered() })},
	{Name: "does not say that a queue was deleted", Promise: 21, Row: "waits-for-queue", receive: deaf(func(_ *subscriber, err error) bool { return is(err, driver.ErrNotFound) })},

	{Name: "keeps exclusive queues", Promise: 22, Row: "exclusive", declare: queues(anybodys)},
	{Name: "keeps temporary queues", Promise: 22, Row: "temporary", declare: queues(anybodys),
		deleteQueue: func(context.Context, driver.Conn, string, driver.DeleteOptions) error { return nil }},
	{Name: "keeps queues that should delete themselves", Promise: 22, Row: "auto-delete", declare: queues(func(q *routing.Queue) { q.AutoDelete = false })},
	{Name: "deletes a queue with its first subscriber", Promise: 22, Row: "auto-delete", closeSub: func(ctx context.Context, s *subscriber) error {
		err := s.Subscriber.Close(ctx)
		_ = s.c.Conn.DeleteQueue(ctx, s.queue, driver.DeleteOptions{})
		return err
	}},
	{Name: "keeps queues that nobody uses", Promise: 22, Row: "queue-expiry", declare: queues(func(q *routing.Queue) { q.Expires = 0 })},
	{Name: "takes declaring again for nothing", Promise: 22, Row: "queue-expiry", declare: func(ctx context.Context, c driver.Conn, t routing.Topology) error {
		if c.Verify(ctx, t) == nil {
			return nil
		}
		return c.Declare(ctx, t)
	}},
	{Name: "expires queues that are in use", Promise: 22, Row: "queue-expiry-in-use", declare: func(ctx context.Context, c driver.Conn, t routing.Topology) error {
		for _, q := range t.Queues {
			if q.Expires > 0 {
				time.AfterFunc(q.Expires, func() { _ = c.DeleteQueue(context.Background(), q.Name, driver.DeleteOptions{}) })
			}
		}
		return c.Declare(ctx, t)
	}},
	{Name: "does not tell Run that a queue was deleted", Promise: 22, Row: "run-of-deleted", receive: deaf(func(_ *subscriber, err error) bool { return is(err, driver.ErrNotFound) })},
	{Name: "keeps what the dead leave behind", Promise: 22, Row: "crash", declare: queues(func(q *routing.Queue) { q.Exclusive, q.AutoDelete = false, false })},

	{Name: "lets others at exclusive queues", Promise: 23, Row: "exclusive", declare: queues(anybodys)},
}
