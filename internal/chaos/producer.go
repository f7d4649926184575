package chaos

import (
	"context"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/polymq/polymq"
)

const (
	pace   = 5 * time.Millisecond // between two publishes of a producer
	window = 64
)

// keys are what producers publish with, in turn.
var keys = []string{"a.1", "b.1", "a.2", "b.2", "r.1", "a.3", "b.3", "a.4"}

// produce publishes until ctx ends, and then waits for the outcomes.
func (c *client) produce(ctx context.Context, conn *polymq.Conn) error {
	pub, err := conn.Publisher(context.Background(), exchange, &polymq.PublisherOptions{Window: window})
	if err != nil {
		return err
	}
	last, cancel := context.WithCancel(context.Background())
	defer cancel()
	var receipts sync.WaitGroup
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		id, key := fmt.Sprintf("%s/%d", c.name, n), keys[n%len(keys)]
		c.ledger.note("i", id, key)
		r, err := pub.PublishAsync(ctx, &polymq.Message{ID: id, Key: key, Body: body(id)})
		if err != nil {
			c.ledger.note("o", id, outcome(err))
			if ctx.Err() == nil {
				return err
			}
			break
		}
		receipts.Go(func() {
			if err := r.Wait(last); last.Err() == nil {
				c.ledger.note("o", id, outcome(err))
			}
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	told := make(chan struct{})
	go func() {
		receipts.Wait()
		close(told)
	}()
	select {
	case <-told:
	case <-time.After(patience):
		cancel()
		<-told
		return fmt.Errorf("publishes have no outcome after %v", patience)
	}
	return nil
}

// body follows from the ID, so that the consumer can tell whether it is whole.
func body(id string) []byte {
	b := make([]byte, 100+hash(id)%900)
	for i := copy(b, id); i < len(b); i++ {
		b[i] = byte(i)
	}
	return b
}

func hash(id string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(id))
	return h.Sum32()
}
