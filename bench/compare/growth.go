package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// growthBody is the size of the messages of growth.
const growthBody = 256

// growthRounds is how often a point is measured: its median counts.
const growthRounds = 3

// growthPatience is how long a curve may have taken when another point of it is
// begun, and longestPoint how long that may be likely to take: as much more than the
// last one as there is more of what grows.
const (
	growthPatience = 30 * time.Second
	longestPoint   = time.Minute
)

// A chart is how one quantity grows. Its lines are backends, and of some charts
// each has several.
type chart struct {
	name string
	x, y string
	log  bool // the y axis too
	skip func(backend string) bool
	draw func(ctx context.Context, g *grower) error
}

var charts = []chart{
	{"publishers", "publishers on one connection", "messages/s", false, nil, growPublishers},
	{"consumers", "consumers of one queue on one connection", "messages/s", false, nil, growConsumers},
	{"queues", "queues on one connection", "messages/s", false, isQuorum, growQueues},
	{"bindings", "bindings", "milliseconds", true, isQuorum, growBindings},
	{"idle", "idle subscribers, each of its own queue", "KiB a subscriber", false, isQuorum, growIdle},
}

// isQuorum leaves out what would measure the making of quorum queues: that is
// the broker's.
func isQuorum(backend string) bool { return backend == "rabbitmq-quorum" }

var memoryBackend = backend{name: "memory", url: func(brokers) string { return "mem://growth" }}

func (r *runner) growth(ctx context.Context) error {
	for _, b := range append(backends[:len(backends):len(backends)], memoryBackend) {
		begun := false
		for _, ch := range charts {
			if !r.match.MatchString("growth/"+ch.name+"/"+b.name) || ch.skip != nil && ch.skip(b.name) {
				continue
			}
			if !begun && b.begin != nil {
				if err := b.begin(ctx, r.urls); err != nil {
					return err
				}
			}
			begun = true
			g := &grower{r: r, b: b, chart: ch.name}
			err := ch.draw(ctx, g)
			g.close()
			if err != nil {
				return fmt.Errorf("growth/%s/%s: %w", ch.name, b.name, err)
			}
		}
	}
	return nil
}

// grower draws the curves of one chart for one backend.
type grower struct {
	closers
	r     *runner
	b     backend
	chart string
}

func (g *grower) open(ctx context.Context) (*polymq.Conn, error) {
	url := g.b.url(g.r.urls)
	if g.b.name == "redis-off" {
		url += "?durability=memory"
	}
	conn, err := polymq.Open(ctx, url, nil)
	if err == nil {
		g.add(func() { _ = conn.Close(context.Background()) })
	}
	return conn, err
}

// declare makes a topology that lasts as long as the grower.
func (g *grower) declare(ctx context.Context, conn *polymq.Conn, t routing.Topology) error {
	for i := range t.Queues {
		t.Queues[i].Type = g.b.kind
	}
	g.add(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		names := make(chan string, len(t.Queues))
		for _, q := range t.Queues {
			names <- q.Name
		}
		_ = eachOf(16, len(t.Queues), func(n int) error {
			for range n {
				if err := conn.DeleteQueue(ctx, <-names, nil); err != nil {
					return err
				}
			}
			return nil
		})
		for _, x := range t.Exchanges {
			_ = conn.DeleteExchange(ctx, x.Name, nil)
		}
	})
	return conn.Declare(ctx, t)
}

// curve measures y at each x and draws the line. Its name is the backend's, and
// what of it where the chart has several.
func (g *grower) curve(ctx context.Context, of string, rounds int, xs []int, y func(ctx context.Context, x int) (float64, error)) error {
	line := g.b.name
	if of != "" {
		line += " " + of
	}
	c := Curve{Chart: g.chart, Line: line, When: time.Now().UTC().Truncate(time.Second), Machine: machine(), Rounds: rounds}
	var took time.Duration // the last point
	for _, x := range xs {
		if n := len(c.Points); n > 0 {
			last := c.Points[n-1].X
			if time.Since(c.When) > growthPatience || took.Seconds()*float64(x)/last > longestPoint.Seconds() {
				fmt.Fprintf(os.Stderr, "growth/%-10s %-28s %7d: left out, since %.0f took %v\n", g.chart, line, x, last, took.Round(time.Millisecond))
				break
			}
		}
		began := time.Now()
		var ys []float64
		for range rounds {
			v, err := y(ctx, x)
			if err != nil {
				return fmt.Errorf("%s at %d: %w", line, x, err)
			}
			ys = append(ys, v)
		}
		took = time.Since(began)
		s := spread(ys)
		c.Points = append(c.Points, Point{float64(x), s})
		fmt.Fprintf(os.Stderr, "growth/%-10s %-28s %7d: %s (%s-%s)\n", g.chart, line, x, number(s.Median), number(s.Min), number(s.Max))
	}
	g.r.results.draw(c)
	return nil
}

// rate is how many a second f does, which is told for how many.
func (g *grower) rate(f func(n int) error) (float64, error) {
	for n := 256; ; n *= 4 {
		runtime.GC()
		start := time.Now()
		if err := f(n); err != nil {
			return 0, err
		}
		if took := time.Since(start); took > 2*g.r.span || n > 1<<20 {
			return float64(n) / took.Seconds(), nil
		}
	}
}
