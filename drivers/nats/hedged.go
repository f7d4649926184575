package nats

import (
	"context"
	"sync"
	"time"
)

// askAgain is how long a question to a cluster goes without an answer before it is
// asked again beside.
const askAgain = 500 * time.Millisecond

// hedged puts a question that may be put twice, again and again beside until one is
// answered. Whoever leads a stream answers for it; a question that came while nobody
// did is never answered, not when somebody does again either.
func hedged[T any](ctx context.Context, s *store, ask func(context.Context) (T, error)) (T, error) {
	if s.nc.ConnectedClusterName() == "" {
		return ask(ctx)
	}
	type answer struct {
		v   T
		err error
	}
	answers := make(chan answer)
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tick := time.NewTicker(askAgain)
	defer tick.Stop()
	for {
		asking.Go(func() {
			v, err := ask(ctx)
			select {
			case answers <- answer{v, err}:
			case <-ctx.Done():
			}
		})
		select {
		case a := <-answers:
			return a.v, a.err
		case <-ctx.Done():
			var none T
			return none, ctx.Err()
		case <-tick.C:
		}
	}
}
