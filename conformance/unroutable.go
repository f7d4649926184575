package conformance

import (
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var unroutableRows = []row{
	{promise: 3, name: "every-kind", run: unroutableEveryKind},
	{promise: 3, name: "default-exchange", run: unroutableDefault},
	{promise: 3, name: "in-a-batch", run: unroutableInBatch},
	{promise: 3, name: "async", run: unroutableAsync},
	{promise: 3, name: "concurrent", run: unroutableConcurrent},
	{promise: 3, name: "drop", run: dropUnroutable},

	{promise: 4, name: "missing-exchange", run: missingExchange},
	{promise: 4, name: "deleted-exchange", run: deletedExchange},
	{promise: 4, name: "declared-later", run: declaredLater},
}

func unroutableEveryKind(e *env) {
	c, other := e.open(), e.open()
	for _, kind := range []routing.Kind{routing.Direct, routing.Fanout, routing.Topic, routing.Headers} {
		x := string(kind)
		e.declare(c, routing.Exchange{Name: x, Kind: kind})
		e.mustBe(e.try(other, x, msg("k", "")), "Publish to a "+x+" exchange without bindings", polymq.ErrUnroutable)
		if kind == routing.Fanout {
			continue
		}
		q := "q-" + x
		e.declare(c, q, routing.Binding{Exchange: x, Queue: q, Key: "other.*", Args: map[string]any{"h": "v"}})
		if kind == routing.Direct {
			e.declare(c, to(x, q, "other.a"))
		}
		e.mustBe(e.try(other, x, msg("k", "")), "Publish to a "+x+" exchange whose binding does not match", polymq.ErrUnroutable)
		e.publish(other, x, &polymq.Message{Key: "other.a", Header: polymq.Header{"h": "v"}, Body: []byte("hit")})
		e.has(c, q, "hit")
	}
}

func unroutableDefault(e *env) {
	c := e.open()
	e.mustBe(e.try(c, "", msg("no such queue", "")), "Publish to the default exchange without such a queue", polymq.ErrUnroutable)
	e.mustBe(e.try(c, "", msg("", "")), "Publish to the default exchange without a key", polymq.ErrUnroutable)
	e.declare(c, "q")
	e.publish(c, "", msg("q", "hit"))
	e.mustBe(e.try(c, "", msg("Q", "")), "Publish to the default exchange, wrong case", polymq.ErrUnroutable)
	e.must(c.DeleteQueue(e.ctx, "q", nil), "DeleteQueue")
	e.mustBe(e.try(c, "", msg("q", "")), "Publish to the default exchange, queue deleted", polymq.ErrUnroutable)
}

// unroutableInBatch mixes outcomes in one call.
func unroutableInBatch(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, "q", to("x", "q", "hit"))
	var batch []*polymq.Message
	var want []string
	for i := range 60 {
		m := msg("hit", strconv.Itoa(i))
		if i%3 == 1 {
			m.Key = "miss"
		} else {
			want = append(want, strconv.Itoa(i))
		}
		if i%2 == 0 {
			m.ID = "id-" + strconv.Itoa(i)
		}
		batch = append(batch, m)
	}
	err := e.publisher(c, "x").Publish(e.short(), batch...)
	e.mustBe(err, "Publish of a batch with unroutable messages", polymq.ErrUnroutable)
	failed := e.failures(err)
	for i, m := range batch {
		f, there := failed[i]
		switch {
		case m.Key == "hit" && there:
			e.Errorf("message %d is routable and reported as %v", i, f.Err)
		case m.Key == "miss" && !there:
			e.Errorf("message %d is unroutable and not reported", i)
		case there && !errors.Is(f.Err, polymq.ErrUnroutable):
			e.Errorf("message %d is reported as %v, want ErrUnroutable", i, f.Err)
		case there && (f.ID == "" || m.ID != "" && f.ID != m.ID):
			e.Errorf("message %d with ID %q is reported with ID %q", i, m.ID, f.ID)
		}
	}
	e.has(c, "q", want...)
}

func unroutableAsync(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Topic}, "q", to("x", "q", "hit.#"))
	p := e.publisher(c, "x")
	var receipts []*polymq.Receipt
	var want []string
	for i := range 200 {
		key := "hit.it"
		if i%7 == 3 {
			key = "miss"
		} else {
			want = append(want, strconv.Itoa(i))
		}
		r, err := p.PublishAsync(e.short(), msg(key, strconv.Itoa(i)))
		e.must(err, "PublishAsync")
		receipts = append(receipts, r)
	}
	for i, r := range receipts {
		err := r.Wait(e.short())
		if miss := i%7 == 3; miss != errors.Is(err, polymq.ErrUnroutable) || !miss && err != nil {
			e.Errorf("message %d, unroutable %v: got %v", i, miss, err)
		}
		if got := r.Err(); (got == nil) != (err == nil) || is(err, polymq.ErrUnroutable) != is(got, polymq.ErrUnroutable) {
			e.Errorf("message %d: Receipt.Err is %v after Wait gave %v", i, got, err)
		}
	}
	e.has(c, "q", want...)
}

// unroutableConcurrent has callers share one publisher, each with outcomes of
// its own.
func unroutableConcurrent(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, "q", to("x", "q", "hit"))
	p := e.publisher(c, "x")
	ctx := e.short()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var want []string
	for g := range 8 {
		wg.Go(func() {
			for i := range 40 {
				m := msg("hit", fmt.Sprintf("%d/%d", g, i))
				miss := (g+i)%2 == 0
				if miss {
					m.Key = "miss"
				}
				err := p.Publish(ctx, m)
				if miss != errors.Is(err, polymq.ErrUnroutable) || !miss && err != nil {
					e.Errorf("caller %d, message %d, unroutable %v: got %v", g, i, miss, err)
				}
				if !miss {
					mu.Lock()
					want = append(want, string(m.Body))
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	e.hasAll(c, "q", want)
}

func dropUnroutable(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, "q", to("x", "q", "hit"))
	p, err := c.Publisher(e.ctx, "x", &polymq.PublisherOptions{DropUnroutable: true})
	e.must(err, "Publisher")
	e.must(p.Publish(e.short(), msg("miss", "1"), msg("hit", "2"), msg("miss", "3")), "Publish with DropUnroutable")
	e.mustBe(e.try(c, "x", msg("miss", "4")), "Publish without DropUnroutable beside it", polymq.ErrUnroutable)
	none, err := c.Publisher(e.ctx, "no such exchange", &polymq.PublisherOptions{DropUnroutable: true})
	e.must(err, "Publisher")
	e.mustBe(none.Publish(e.short(), msg("k", "")), "Publish with DropUnroutable to a missing exchange", polymq.ErrNotFound)
	e.has(c, "q", "2")
}

func missingExchange(e *env) {
	c := e.open()
	missing := topology(routing.Exchange{Name: "nowhere", Kind: routing.Direct})
	e.mustBe(e.try(c, "nowhere", msg("k", "")), "Publish to a missing exchange", polymq.ErrNotFound)
	err := e.publisher(c, "nowhere").Publish(e.short(), numbered(3, "k", "")...)
	e.mustBe(err, "Publish of a batch to a missing exchange", polymq.ErrNotFound)
	if n := len(e.failures(err)); n != 3 {
		e.Errorf("%d of 3 messages to a missing exchange are reported", n)
	}
	r, err := e.publisher(c, "nowhere").PublishAsync(e.short(), msg("k", ""))
	e.must(err, "PublishAsync")
	e.mustBe(r.Wait(e.short()), "PublishAsync to a missing exchange", polymq.ErrNotFound)
	e.mustBe(c.Verify(e.ctx, missing), "Verify of the exchange after that", polymq.ErrNotFound)

	e.declare(c, "q")
	e.publish(c, "", msg("q", "others go on"))
	e.has(c, "q", "others go on")
}

func deletedExchange(e *env) {
	c, other := e.open(), e.open()
	x := routing.Exchange{Name: "x", Kind: routing.Fanout}
	e.declare(c, x, "q", to("x", "q", ""))
	e.publish(other, "x", msg("", "1"))
	e.must(c.DeleteExchange(e.ctx, "x", nil), "DeleteExchange")
	e.mustBe(e.try(other, "x", msg("", "2")), "Publish to a deleted exchange", polymq.ErrNotFound)
	e.declare(c, x)
	e.mustBe(e.try(other, "x", msg("", "3")), "Publish to an exchange made anew, whose bindings went with the old one", polymq.ErrUnroutable)
	e.has(c, "q", "1")
}

func declaredLater(e *env) {
	c, other := e.open(), e.open()
	e.mustBe(e.try(other, "x", msg("k", "0")), "Publish to a missing exchange", polymq.ErrNotFound)
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Fanout}, "q", to("x", "q", ""))
	e.publish(other, "x", msg("k", "1"))
	e.has(c, "q", "1")
}
