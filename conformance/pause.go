package conformance

import (
	"context"
	"strconv"
	"time"

	"github.com/polymq/polymq"
)

var pauseRows = []row{
	{promise: 19, name: "pause", run: pauses},
	{promise: 19, name: "pause-under-run", run: pausesUnderRun},
}

// pauses gives back what was prefetched, holds what was handed out, and goes
// on.
func pauses(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", numbered(5, "q", "")...)
	s := e.subscriber(c, "q", 5)
	held := e.body(s, "0")
	for range 2 {
		e.must(s.Pause(e.ctx), "Pause")
	}
	other := e.subscriber(e.open(), "q", 5)
	got := map[string]bool{}
	for range 4 {
		d := e.receive(other)
		got[string(d.Body)] = true
		if f := c.Features(); f.Has(polymq.FeatureAttempts) && !f.CountsReturned {
			e.attempt(d, 1)
		}
		e.ack(d)
	}
	if len(got) != 4 || got["0"] {
		e.Errorf("another subscriber got %v, want what the paused one had only prefetched", got)
	}
	e.close(other)
	e.ack(held)
	e.publish(c, "", msg("q", "meanwhile"))
	ctx, cancel := context.WithTimeout(e.ctx, e.b.Patience/10)
	_, err := s.Receive(ctx)
	cancel()
	e.mustBe(err, "Receive during a pause", context.DeadlineExceeded)
	// What waits goes on by itself.
	received := make(chan *polymq.Delivery, 1)
	go func() { // ends with the row's context at the latest
		d, err := s.Receive(e.short())
		if err != nil {
			e.Errorf("Receive that a pause held up: %v", err)
		}
		received <- d
	}()
	for range 2 {
		e.must(s.Resume(e.ctx), "Resume")
	}
	if d := <-received; d != nil {
		if string(d.Body) != "meanwhile" {
			e.Errorf("after the pause it received %q", d.Body)
		}
		e.ack(d)
	}
	e.publish(c, "", msg("q", "after"))
	e.ack(e.body(s, "after"))
	e.must(s.Pause(e.ctx), "Pause")
	e.close(s)
	e.has(c, "q")
}

// pausesUnderRun pauses a Run.
func pausesUnderRun(e *env) {
	c := e.open()
	e.declare(c, "q")
	s := e.subscriber(c, "q", 5)
	ctx, cancel := context.WithTimeout(e.ctx, 4*e.b.Patience)
	defer cancel()
	handled := make(chan string, 100)
	done := make(chan error, 1)
	go func() { // ends with ctx at the latest
		done <- s.Run(ctx, func(_ context.Context, d *polymq.Delivery) error {
			handled <- string(d.Body)
			return nil
		})
	}()
	next := func(want string) {
		e.Helper()
		select {
		case got := <-handled:
			if got != want {
				e.Fatalf("the handler got %q, want %q", got, want)
			}
		case <-time.After(e.patience()):
			e.Fatalf("the handler did not get %q", want)
		}
	}
	for i := range 3 {
		e.publish(c, "", msg("q", strconv.Itoa(i)))
		next(strconv.Itoa(i))
		e.must(s.Pause(ctx), "Pause under Run")
		e.publish(c, "", msg("q", "during the pause"))
		other := e.subscriber(c, "q", 1)
		e.ack(e.body(other, "during the pause"))
		e.close(other)
		e.must(s.Resume(ctx), "Resume under Run")
	}
	cancel()
	e.must(<-done, "Run")
	e.close(s)
	e.has(c, "q")
}
