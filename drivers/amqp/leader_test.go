package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestLeaderKilledConfirmed kills the node that leads all queues under load. A
// connection to another node, which is long past its beginning, tries each message
// until the queue has a leader, also those of queues that its channel is new to;
// and a queue that is full refuses as before.
func TestLeaderKilledConfirmed(t *testing.T) {
	cl := testbroker.StartCluster(t, "amqp")
	var queues []routing.Queue
	var bindings []routing.Binding
	for i := range 6 {
		name := fmt.Sprint("q", i)
		queues = append(queues, routing.Queue{Name: name})
		bindings = append(bindings, routing.Binding{Exchange: "x", Queue: name, Key: name})
	}
	full := routing.Queue{Name: "full", MaxLength: 2, Overflow: routing.RejectPublish}
	topology := routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Direct}},
		Queues:    append(queues, full),
		Bindings:  append(bindings, routing.Binding{Exchange: "x", Queue: "full", Key: "full"}),
	}
	leader := openURL(t, cl.Nodes[0].URL())
	check(t, leader.Declare(ctxOf(t), topology))
	time.Sleep(declareSettles)
	c := openURL(t, cl.Nodes[1].URL())
	p, direct := publisherOf(t, c, "x"), publisherOf(t, c, "")
	for range 10 {
		publish(t, p, driver.Message{Key: "full"})
	}
	refused := func(when string) {
		t.Helper()
		for _, p := range []driver.Publisher{p, direct} {
			if err := publish(t, p, driver.Message{Key: "full"}); !errors.Is(err, driver.ErrRejected) || errors.Is(err, driver.ErrUnconfirmed) {
				t.Errorf("%s: publish to a full queue: %v", when, err)
			}
		}
	}
	refused("before")
	check(t, publish(t, p, driver.Message{Key: "q0"}))
	age(c)

	var wg sync.WaitGroup
	dead := make(chan struct{})
	stop := make(chan struct{})
	for i := range 6 {
		for _, p := range []driver.Publisher{p, direct} {
			wg.Go(func() {
				if i > 0 { // the channel is new to its queue
					<-dead
				}
				for {
					x := publishing(driver.Message{Key: fmt.Sprint("q", i)})
					ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
					start := time.Now()
					p.Publish(ctx, []*driver.Publishing{x}, true)
					select {
					case <-x.Owner.(*outcome).done:
					case <-time.After(30 * time.Second):
						t.Errorf("q%d: no outcome", i)
					}
					cancel()
					if err := x.Err(); x.Resolved() && err != nil {
						t.Errorf("q%d: %v after %v", i, err, time.Since(start))
						return
					}
					if took := time.Since(start); took > 300*time.Millisecond {
						t.Logf("q%d: confirmed after %v", i, took.Round(time.Millisecond))
					}
					select {
					case <-stop:
						return
					case <-time.After(time.Millisecond):
					}
				}
			})
		}
	}
	cl.Nodes[0].Kill()
	close(dead)
	until(t, "others lead", func() bool { return cl.Leader() != cl.Nodes[0] })
	refused("after")
	close(stop)
	wg.Wait()
}
