package oracle

import (
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// What runs have found, as they printed it.

// An attempt that Close ends counts at once, not for the next subscriber.
func TestSeed46Mem(t *testing.T) {
	replay(t, "mem", Script{Driver: true, Ops: []Op{
		Declare{Topology: routing.Topology{Queues: []routing.Queue{{Name: "q1"}, {Name: "q2", DeadLetterExchange: "amq.default", DeadLetterKey: "q1", MaxAttempts: 1}}}},
		Publish{On: 1, Messages: []polymq.Message{{ID: "m1", Key: "q2", Body: []byte("body 1")}}},
		Subscribe{By: "c1", Queue: "q2", Prefetch: 100},
		Receive{By: "c1"},
		Close{By: "c1"},
		Subscribe{By: "c2", Queue: "q1", Prefetch: 100},
		Receive{By: "c2"},
	}})
}

// A subscriber that closes takes nothing for the room that it makes.
func TestSeed7108Nats(t *testing.T) {
	replay(t, "nats", Script{Classic: true, Ops: []Op{
		Declare{Topology: routing.Topology{Queues: []routing.Queue{{Name: "q1", MaxPriority: 4}}}},
		Publish{On: 1, Messages: []polymq.Message{{ID: "m2", Key: "q1", Body: []byte("body 2"), Priority: 0x3}, {ID: "m3", Key: "q1", Body: []byte("body 3"), Priority: 0x2}}},
		Subscribe{On: 1, By: "c1", Queue: "q1", Prefetch: 2},
		Publish{On: 1, Messages: []polymq.Message{{ID: "m7", Key: "q1", Body: []byte("body 7"), Priority: 0xb}}},
		Receive{By: "c1", Max: 3},
		Close{By: "c1"},
		Subscribe{By: "c2", Queue: "q1", Prefetch: 100},
		Receive{By: "c2"},
	}})
}
