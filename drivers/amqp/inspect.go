package amqp

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// Inspect implements driver.Conn. Ready and Consumers are the broker's own at
// this moment; Unsettled comes from the management API, whose figures can be
// some seconds old.
func (c *Conn) Inspect(ctx context.Context, queue string) (driver.QueueInfo, error) {
	var info driver.QueueInfo
	if c.management == nil {
		return info, needManagement("Inspect")
	}
	err := c.doWith(ctx, []string{queue}, func(ch *channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		info.Ready, info.Consumers = q.Messages, q.Consumers
		return err
	})
	if err != nil {
		return driver.QueueInfo{}, err // f may still be writing info
	}
	row, err := c.management.queue(ctx, queue)
	info.Unsettled = row.Unsettled
	return info, err
}

// verifyFields compares what stands with t.
func (c *Conn) verifyFields(ctx context.Context, t routing.Topology) error {
	stands, err := c.Topology(ctx)
	if err != nil {
		return err
	}
	exchanges := map[string]routing.Exchange{}
	for _, e := range stands.Exchanges {
		exchanges[e.Name] = e
	}
	for name, kind := range predeclared {
		exchanges[name] = routing.Exchange{Name: name, Kind: kind}
	}
	queues := map[string]routing.Queue{}
	for _, q := range stands.Queues {
		queues[q.Name] = q
	}
	var errs []error
	for _, want := range t.Exchanges {
		have, ok := exchanges[want.Name]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("exchange %q: %w", want.Name, driver.ErrNotFound))
		case len(have.Differences(want)) > 0:
			errs = append(errs, fmt.Errorf("exchange %q: %w: %v", want.Name, driver.ErrConflict, have.Differences(want)[0]))
		}
	}
	for _, want := range t.Queues {
		have, ok := queues[want.Name]
		if !ok {
			errs = append(errs, fmt.Errorf("queue %q: %w", want.Name, driver.ErrNotFound))
			continue
		}
		if field := c.queueDifference(have, want); field != "" {
			errs = append(errs, fmt.Errorf("queue %q: %w: %s", want.Name, driver.ErrConflict, field))
		}
	}
	for _, want := range t.Bindings {
		if !hasBinding(stands.Bindings, want) {
			errs = append(errs, fmt.Errorf("binding %s: %w", bindingText(want), driver.ErrNotFound))
		}
	}
	return errors.Join(errs...)
}

var predeclared = map[string]routing.Kind{
	"amq.direct": routing.Direct, "amq.fanout": routing.Fanout, "amq.topic": routing.Topic,
	"amq.headers": routing.Headers, "amq.match": routing.Headers,
}

// queueDifference compares as the broker would: by what Declare would send.
func (c *Conn) queueDifference(have, want routing.Queue) string {
	switch {
	case have.Transient != want.Transient && !want.Exclusive:
		return "Transient"
	case have.Exclusive != want.Exclusive:
		return "Exclusive"
	case have.AutoDelete != want.AutoDelete:
		return "AutoDelete"
	}
	a, _ := formOf(have, c.version)
	b, err := formOf(want, c.version)
	if err != nil {
		return err.Error()
	}
	for _, args := range [...]map[string]any{a.args, b.args} {
		for name := range args {
			if !reflect.DeepEqual(a.args[name], b.args[name]) {
				return conflictField("inequivalent arg '" + name + "'")
			}
		}
	}
	return ""
}

func hasBinding(stands []routing.Binding, want routing.Binding) bool {
	return slices.ContainsFunc(stands, func(b routing.Binding) bool { return sameBinding(b, want) })
}

func sameBinding(a, b routing.Binding) bool {
	return a.Exchange == b.Exchange && a.Queue == b.Queue && a.ToExchange == b.ToExchange && a.Key == b.Key && sameArgs(bindingArgs(a), bindingArgs(b))
}

// sameArgs compares as far as the API tells: it shows bytes as text and times
// as numbers.
func sameArgs(a, b map[string]any) bool {
	if len(a) != len(b) {
		return false
	}
	for name, v := range b {
		w, ok := a[name]
		if !ok || fmt.Sprint(w) != fmt.Sprint(jsonForm(v)) {
			return false
		}
	}
	return true
}
