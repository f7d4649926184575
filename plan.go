package polymq

import (
	"context"
	"reflect"
	"slices"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// Plan says what Declare(t) would do: what it would make, and what stands
// differently, for which it would return ErrConflict; and what stands beside,
// whoever declared it, which it leaves alone. It changes nothing, and what
// another process changes meanwhile is not in it. The plan's String is for
// people.
//
// What Declare would refuse whatever stands is Plan's error: ErrInvalid, or
// errors.ErrUnsupported. So is what Topology says where the backend cannot show
// what stands (RabbitMQ without the management option).
func (c *Conn) Plan(ctx context.Context, t routing.Topology) (routing.Plan, error) {
	p, err := c.plan(ctx, t)
	return p, c.wrap("plan", "", err)
}

func (c *Conn) plan(ctx context.Context, t routing.Topology) (p routing.Plan, err error) {
	if err := c.usable(ctx); err != nil {
		return p, err
	}
	if err := t.Validate(); err != nil {
		return p, err
	}
	if err := c.has(t.Queues); err != nil {
		return p, err
	}
	if checker, ok := c.dc.(driver.Checker); ok {
		if err := checker.Check(t); err != nil {
			return p, err
		}
	}
	stands, err := c.dc.Topology(ctx)
	if err != nil {
		return p, err
	}
	viewer, ok := c.dc.(driver.Viewer)
	if !ok {
		return routing.Compare(stands, t), nil
	}
	seen, shown := slices.Clone(t.Bindings), []int(nil)
	for i, b := range t.Bindings {
		if seen[i].Args = viewer.Seen(b.Args); !reflect.DeepEqual(seen[i].Args, b.Args) {
			shown = append(shown, i)
		}
	}
	p = routing.Compare(stands, routing.Topology{Exchanges: t.Exchanges, Queues: t.Queues, Bindings: seen})
	// What is to create is to be made as it was asked for.
	for i, b := range p.Create.Bindings {
		for _, j := range shown {
			if reflect.DeepEqual(b, seen[j]) {
				p.Create.Bindings[i] = t.Bindings[j]
			}
		}
	}
	return p, nil
}
