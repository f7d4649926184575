package amqp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/internal/rabbitmq"
)

// A quorum queue without a delivery limit was made on RabbitMQ 3, or by another
// program. RabbitMQ 4 takes that for 20 attempts, unless a policy says otherwise,
// and polymq declares there that there is no limit, which is another queue.

// endless is a delivery limit that nothing reaches: RabbitMQ 3 takes no policy
// that says there is none.
const endless = 1_000_000_000

// declareQueue declares a queue; one that has no limit by a policy is taken as it
// stands.
func (c *Conn) declareQueue(ctx context.Context, ch *channel, name string, form queueForm) error {
	err := form.declare(ch, name)
	if !form.older(err) {
		return err
	}
	if !c.endlessByPolicy(ctx, name) {
		return fmt.Errorf("it was made without a delivery limit, as on RabbitMQ 3, and RabbitMQ 4 drops or dead-letters after 20: give it the policy {\"delivery-limit\":%d} and the URL the option management, or delete it and declare it anew: %w", endless, err)
	}
	if err := ch.reopen(); err != nil {
		return err
	}
	form.args = maps.Clone(form.args)
	delete(form.args, argDeliveryLimit)
	return form.declare(ch, name)
}

// older reports that a declaration was refused since the queue stands as RabbitMQ
// 3 makes it.
func (f queueForm) older(err error) bool {
	var e *amqp091.Error
	return f.args[argDeliveryLimit] == int64(-1) && errors.As(err, &e) && e.Code == amqp091.PreconditionFailed &&
		strings.Contains(e.Reason, "'"+argDeliveryLimit+"'") && strings.HasSuffix(e.Reason, "but current is none")
}

// endlessByPolicy reports that a policy is known to give a queue no limit.
func (c *Conn) endlessByPolicy(ctx context.Context, queue string) bool {
	if c.management == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, managementTime)
	defer cancel()
	q, err := c.management.queue(ctx, queue)
	policy, _ := q.Policy.(map[string]any)
	limit, ok := rabbitmq.Value(policy["delivery-limit"]).(int64)
	return err == nil && ok && (limit < 0 || limit >= endless)
}
