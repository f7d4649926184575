package polymq

import (
	"context"

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
// what stands (RabbitMQ without the management option). RabbitMQ shows arguments of
// bindings without their types: bindings that differ in nothing else are told apart
// only by how many they are.
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
	if viewer, ok := c.dc.(driver.Viewer); ok {
		return routing.CompareSeen(stands, t, viewer.Seen), nil
	}
	return routing.Compare(stands, t), nil
}
