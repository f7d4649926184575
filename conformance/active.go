package conformance

import (
	"strconv"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var activeRows = []row{
	{promise: 14, name: "single-active", needs: []polymq.Feature{polymq.FeatureSingleActiveConsumer}, run: singleActive},
	{promise: 14, name: "single-active-pauses", needs: []polymq.Feature{polymq.FeatureSingleActiveConsumer}, run: singleActivePauses},
	{promise: 14, name: "single-active-killed", needs: []polymq.Feature{polymq.FeatureSingleActiveConsumer}, hooks: hookKill, run: singleActiveKilled},
}

// singleActive has three subscribers: one gets all, and when it goes the next.
func singleActive(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Queue{Name: "q", SingleActiveConsumer: true})
	subs := []*polymq.Subscriber{e.subscriber(c, "q", 1), e.subscriber(other, "q", 100), e.subscriber(c, "q", 100)}
	e.publish(c, "", numbered(20, "q", "")...)
	for i := range 19 {
		e.ack(e.body(subs[0], strconv.Itoa(i)))
	}
	e.body(subs[0], "19")
	e.close(subs[0]) // gives the last one back
	e.publish(c, "", numbered(20, "q", "next ")...)
	got := map[string]bool{}
	for len(got) < 21 {
		d := e.receive(subs[1])
		got[string(d.Body)] = true
		e.ack(d)
	}
	if !got["19"] {
		e.Errorf("what the first gave back did not go to the second")
	}
	e.close(other)
	e.publish(c, "", msg("q", "last"))
	e.ack(e.body(subs[2], "last"))
}

// singleActivePauses hands over by a pause: what the first holds stays its own.
func singleActivePauses(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Queue{Name: "q", SingleActiveConsumer: true})
	first, second := e.subscriber(c, "q", 2), e.subscriber(other, "q", 2)
	e.publish(c, "", msg("q", "held"))
	held := e.body(first, "held")
	e.must(first.Pause(e.ctx), "Pause")
	e.publish(c, "", numbered(3, "q", "")...)
	for i := range 3 {
		e.ack(e.body(second, strconv.Itoa(i)))
	}
	e.ack(held)
	// It comes after the second now.
	e.must(first.Resume(e.ctx), "Resume")
	e.publish(c, "", msg("q", "again"))
	e.ack(e.body(second, "again"))
	e.close(second)
	e.publish(c, "", msg("q", "back"))
	e.ack(e.body(first, "back"))
}

// singleActiveKilled has the active one die: the next one gets what it held.
func singleActiveKilled(e *env) {
	c := e.open()
	through, kill := e.b.Kill(e.TB, e.namespace())
	e.declare(c, routing.Queue{Name: "q", SingleActiveConsumer: true})
	first := e.subscriber(e.openVictim(through), "q", 1)
	second := e.subscriber(c, "q", 10)
	e.publish(c, "", msg("q", "0"), msg("q", "1"))
	e.body(first, "0")
	kill()
	got := map[string]bool{}
	for len(got) < 2 {
		d := e.receiveWithin(second, e.leavings(c))
		got[string(d.Body)] = true
		e.ack(d)
	}
	if !got["0"] || !got["1"] {
		e.Errorf("the next one got %v", got)
	}
}
