package conformance

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var hashRows = []row{
	{promise: 12, name: "consistent-hash", run: routeConsistentHash},
}

// routeConsistentHash: each message goes along one binding, as often as the
// weights say; a key goes the same way again, and a new binding moves keys to
// itself only. A broker without such exchanges refuses them.
func routeConsistentHash(e *env) {
	c := e.open()
	weights := []string{"1", "2", "1"}
	queues := []string{"h0", "h1", "h2"}
	x := routing.Exchange{Name: "x", Kind: routing.ConsistentHash}
	t := topology(x)
	add := func(i int, weight string) {
		q := "h" + strconv.Itoa(i)
		t.Queues = append(t.Queues, routing.Queue{Name: q, Transient: true})
		t.Bindings = append(t.Bindings, to("x", q, weight))
	}
	for i, w := range weights {
		add(i, w)
	}
	err := c.Declare(e.ctx, t)
	if errors.Is(err, errors.ErrUnsupported) {
		e.says(err, "Declare of an exchange of a kind that the broker lacks", string(routing.ConsistentHash))
		return
	}
	e.must(err, "Declare")

	const keys = 600
	first := e.hashed(c, keys, queues)
	if again := e.hashed(c, keys, queues); !slices.Equal(again, first) {
		e.Errorf("the same keys went other ways when they came again")
	}
	split := make([]int, len(queues))
	for _, way := range first {
		split[way]++
	}
	for i, share := range []float64{0.25, 0.5, 0.25} {
		// Six standard deviations of a fair draw.
		if want := keys * share; math.Abs(float64(split[i])-want) > 6*math.Sqrt(want*(1-share)) {
			e.Errorf("with the weights %q, %d keys were split as %v", weights, keys, split)
			break
		}
	}

	add(3, "1")
	e.must(c.Declare(e.ctx, t), "Declare of one more queue")
	moved := 0
	for i, way := range e.hashed(c, keys, append(queues, "h3")) {
		switch way {
		case first[i]:
		case 3:
			moved++
		default:
			e.Fatalf("key %d went from h%d to h%d, though neither is new", i, first[i], way)
		}
	}
	if want := keys * 0.2; math.Abs(float64(moved)-want) > 6*math.Sqrt(want*0.8) {
		e.Errorf("%d of %d keys moved to a queue with a fifth of the weights", moved, keys)
	}
}

// hashed publishes one message with each key and says into which of the queues
// it came, and wants it in no other.
func (e *env) hashed(c *polymq.Conn, keys int, queues []string) []int {
	e.Helper()
	ms := make([]*polymq.Message, keys)
	ways := make([]int, keys)
	for i := range ms {
		ms[i], ways[i] = msg(fmt.Sprint("key.", i), strconv.Itoa(i)), -1
	}
	e.publish(c, "x", ms...)
	arrived := 0
	for way, q := range queues {
		for _, d := range e.drain(c, q) {
			i, err := strconv.Atoi(string(d.Body))
			e.must(err, "the body %.60q", d.Body)
			if ways[i] >= 0 {
				e.Fatalf("key %d went to %s and %s", i, queues[ways[i]], q)
			}
			ways[i] = way
			arrived++
		}
	}
	if arrived != keys {
		e.Fatalf("%d of %d messages arrived", arrived, keys)
	}
	return ways
}
