package faulty

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// deaf waits for ctx in place of a delivery.
func deaf(when func(s *subscriber, err error) bool) func(context.Context, *subscriber, []*driver.Delivery) (int, error) {
	return func(ctx context.Context, s *subscriber, buf []*driver.Delivery) (int, error) {
		n, err := s.Subscriber.Receive(ctx, buf)
		if when(s, err) {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		return n, err
	}
}

// reopened reads a URL again with other options.
func reopened(u *driver.URL, options string) (*driver.URL, error) {
	return driver.ParseURL("mem://" + u.Hosts[0] + "?" + options)
}

var lifecycleFaults = []Fault{
	{Name: "publishers do not come back", Promise: 21, publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		if !p.c.d.wasSevered() {
			p.Publisher.Publish(ctx, batch, wait)
			return
		}
		for _, b := range batch {
			b.Resolve(driver.ErrClosed)
		}
	}},
	{Name: "subscribers do not come back", Promise: 21, receive: deaf(func(s *subscriber, _ error) bool { return s.c.d.wasSevered() })},
	{Name: "calls do not end with their context", Promise: 21, publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		late, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = p.c.l.wait(late)
		p.Publisher.Publish(ctx, batch, wait)
	}},
	{Name: "ends a subscriber whose queue is about to stand again", Promise: 21, Row: "declared", restores: func(string) bool { return false }},

	{Name: "leaves a goroutine", Promise: 22, closeConn: func(ctx context.Context, c driver.Conn) error {
		go time.Sleep(5 * time.Second) // ten times what the row waits
		return c.Close(ctx)
	}},
	{Name: "does not end Receive", Promise: 22, receive: deaf(func(_ *subscriber, err error) bool { return is(err, driver.ErrClosed) })},
	{Name: "does not hear of a deleted queue", Promise: 22, receive: deaf(func(_ *subscriber, err error) bool { return is(err, driver.ErrNotFound) })},
	{Name: "fails to close", Promise: 22, closeSub: func(ctx context.Context, s *subscriber) error {
		if err := s.Subscriber.Close(ctx); err != nil {
			return err
		}
		return driver.ErrClosed
	}},

	{Name: "takes unknown options", Promise: 23, open: func(_ *Driver, u *driver.URL) (*driver.URL, error) { return reopened(u, "") }},
	{Name: "takes unknown arguments", Promise: 23, declare: declaring(func(t *routing.Topology) {
		for i := range t.Queues {
			t.Queues[i].Args = nil
		}
	})},
	{Name: "declares what it refuses", Promise: 23, declare: func(ctx context.Context, c driver.Conn, t routing.Topology) error {
		if slices.ContainsFunc(t.Queues, func(q routing.Queue) bool { return q.Exclusive }) {
			return errors.ErrUnsupported
		}
		return c.Declare(ctx, t)
	}},
	{Name: "does what it says it refuses", Promise: 23, features: func(f *driver.Features) { supporting(f, driver.Purge, driver.Refused) },
		purge: func(ctx context.Context, c driver.Conn, queue string) (int, error) { return c.Purge(ctx, queue) }},
	{Name: "leaves a feature out", Promise: 23, features: func(f *driver.Features) { supporting(f, driver.DeadLetter, "") }},
	{Name: "purges nothing", Promise: 23, purge: func(context.Context, driver.Conn, string) (int, error) { return 0, nil }},
	{Name: "counts what is held as ready", Promise: 23, inspect: func(i driver.QueueInfo) driver.QueueInfo {
		i.Ready += i.Unsettled
		return i
	}},
	{Name: "takes less than it declares", Promise: 23, publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		var rest []*driver.Publishing
		for _, b := range batch {
			if len(b.Message.Body) > 1<<20 {
				b.Resolve(driver.ErrTooLarge)
				continue
			}
			rest = append(rest, b)
		}
		p.Publisher.Publish(ctx, rest, wait)
	}},

	{Name: "works on what a newer version wrote", Promise: 24, open: func(_ *Driver, u *driver.URL) (*driver.URL, error) { return u, nil }},
	{Name: "keeps every connection to itself", Promise: 24, open: func(d *Driver, u *driver.URL) (*driver.URL, error) {
		if d.isNewer(u) {
			return nil, driver.ErrPermission
		}
		return reopened(u, "vhost="+strconv.Itoa(d.number()))
	}},
}

func supporting(f *driver.Features, feature driver.Feature, s driver.Support) {
	support := map[driver.Feature]driver.Support{}
	for k, v := range f.Support {
		support[k] = v
	}
	support[feature] = s
	f.Support = support
}
