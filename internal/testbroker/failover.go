package testbroker

import (
	"context"
	"fmt"
	"time"
)

// Failover kills the Leader and returns it when others lead what it led.
func (c *Cluster) Failover() *Broker {
	c.t.Helper()
	dead := c.Leader()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	led, err := c.kind.led(ctx, c.peers)
	if err != nil {
		c.t.Fatal(err)
	}
	before, err := c.kind.leads(ctx, c.peers, led)
	if err != nil {
		c.t.Fatal(err)
	}
	dead.Kill()
	err = retry(ctx, func(ctx context.Context) error {
		now, err := c.kind.leads(ctx, c.peers, led)
		if err != nil {
			return err
		}
		for i, n := range c.Nodes {
			if n == dead && now[i] > 0 {
				return fmt.Errorf("a node of %s that was killed leads on", c.kind.title())
			}
		}
		if sum(now) < sum(before) {
			return fmt.Errorf("%d of %d have a leader in %s", sum(now), sum(before), c.kind.title())
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return dead
}

// Rejoined is what came of a Rejoin, and when.
type Rejoined struct {
	At  time.Time
	Err error
}

// Rejoin starts a node that was killed, beside what else goes on, and sends when all
// run as one again, or why not. Until then the cluster can be asked who leads, and
// nothing else is done with its nodes; not on Redis.
func (c *Cluster) Rejoin(dead *Broker) <-chan Rejoined {
	done := make(chan Rejoined, 1)
	c.rejoined.Go(func() {
		err := dead.restart()
		if err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			err = c.peers.joined(ctx, c.kind)
		}
		done <- Rejoined{time.Now(), err}
	})
	return done
}

// Await returns when all nodes run as one.
func (c *Cluster) Await() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.peers.joined(ctx, c.kind); err != nil {
		c.t.Fatal(err)
	}
}

func sum(list []int) int {
	total := 0
	for _, n := range list {
		total += n
	}
	return total
}
