package amqp

import (
	"slices"
	"time"

	"github.com/polymq/polymq/routing"
)

// rebindTime is for how long what a binding leads from is waited for: another program
// that has declared it may be back later.
const rebindTime = time.Minute

// rebind makes bindings that could not be made anew, since what they lead from was not
// there, once it is, as far as they are still wanted. It does not wait for that.
func (c *Conn) rebind(bs []routing.Binding, wanted func() []routing.Binding) {
	if len(bs) == 0 {
		return
	}
	tell := func(text string) {
		for _, b := range bs {
			c.cfg.Logger.Warn("polymq: "+text, "scheme", "amqp", "binding", bindingText(b))
		}
	}
	tell("a binding cannot be made anew yet, since its exchange or queue is gone; it is tried again for " + rebindTime.String())
	c.tasks.Go(func() {
		pause := minPause
		for end := time.Now().Add(rebindTime); len(bs) > 0; pause = longer(pause) {
			if time.Now().After(end) {
				tell("a binding was not made anew, since its exchange or queue has not come back")
				return
			}
			select {
			case <-time.After(pause):
			case <-c.ctx.Done():
				return
			}
			var rest []routing.Binding
			if c.do(c.ctx, func(ch *channel) (err error) { rest, err = bindWanted(ch, bs, wanted); return err }) != nil {
				return // c has ended
			}
			bs = rest
		}
	})
}

// bindWanted returns those that are wanted and could not be made.
func bindWanted(ch *channel, bs []routing.Binding, wanted func() []routing.Binding) (rest []routing.Binding, err error) {
	lacks := func(in []routing.Binding, b routing.Binding) bool {
		return !slices.ContainsFunc(in, func(o routing.Binding) bool { return sameBinding(o, b) })
	}
	var made []routing.Binding
	before := wanted()
	for _, b := range bs {
		if lacks(before, b) {
			continue
		}
		if err := ch.reopen(); err != nil {
			return nil, err
		}
		if bind(ch, b) == nil {
			made = append(made, b)
		} else {
			rest = append(rest, b)
		}
	}
	after := wanted()
	for _, b := range made {
		if lacks(after, b) { // removed while it was made
			if err := ch.reopen(); err != nil {
				return nil, err
			}
			unbind(ch, b)
		}
	}
	return rest, nil
}
