package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var publishRows = []row{
	{promise: 1, name: "every-queue-has-it", run: everyQueueHasIt},
	{promise: 1, name: "at-return", needs: []polymq.Feature{polymq.FeaturePurge}, run: thereAtReturn},
	{promise: 1, name: "properties", run: propertiesArrive},
	{promise: 1, name: "headers", run: headersArrive},
	{promise: 1, name: "bodies", run: bodiesArrive},
	{promise: 1, name: "message-untouched", run: messageUntouched},
	{promise: 1, name: "generated-id", run: generatedID},

	{promise: 2, name: "ended-context", run: endedContext},
	{promise: 2, name: "closed-under-way", run: closedUnderWay},
	{promise: 2, name: "same-id-again", needs: []polymq.Feature{polymq.FeatureDedup}, run: sameIDAgain},
	{promise: 2, name: "same-id-other-queue", run: sameIDOtherQueue},
	{promise: 2, name: "hanging-broker", hooks: hookPause, run: hangingBroker},
	{promise: 2, name: "severed", hooks: hookSever, run: severedPublishes},

	{promise: 3, name: "every-kind", run: unroutableEveryKind},
	{promise: 3, name: "default-exchange", run: unroutableDefault},
	{promise: 3, name: "in-a-batch", run: unroutableInBatch},
	{promise: 3, name: "async", run: unroutableAsync},
	{promise: 3, name: "concurrent", run: unroutableConcurrent},
	{promise: 3, name: "drop", run: dropUnroutable},

	{promise: 4, name: "missing-exchange", run: missingExchange},
	{promise: 4, name: "deleted-exchange", run: deletedExchange},
	{promise: 4, name: "declared-later", run: declaredLater},

	{promise: 5, name: "many-bindings", run: manyBindings},
	{promise: 5, name: "many-paths", run: manyPaths},
	{promise: 5, name: "many-keys", run: manyKeys},

	{promise: 6, name: "singles", run: orderOfSingles},
	{promise: 6, name: "batches", run: orderOfBatches},
	{promise: 6, name: "async", run: orderOfAsync},
	{promise: 6, name: "fan-out", run: orderOfFanOut},
	{promise: 6, name: "redelivered", run: orderOfRedelivered},

	{promise: 7, name: "window", run: boundedByWindow},
	{promise: 7, name: "flush", run: flushWaits},
	{promise: 7, name: "full-window", hooks: hookPause, run: fullWindow},
}

func everyQueueHasIt(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Fanout}, "a", "b", "c", to("x", "a", ""), to("x", "b", ""), to("x", "c", ""))
	var want []string
	for _, m := range numbered(30, "k", "single ") {
		e.publish(c, "x", m)
		want = append(want, string(m.Body))
	}
	batch := numbered(40, "k", "batch ")
	e.publish(c, "x", batch...)
	want = append(want, bodies(batch)...)
	for _, m := range numbered(40, "k", "async ") {
		r, err := e.publisher(c, "x").PublishAsync(e.short(), m)
		e.must(err, "PublishAsync")
		e.must(r.Wait(e.short()), "Receipt.Wait")
		want = append(want, string(m.Body))
	}
	for _, q := range []string{"a", "b", "c"} {
		e.has(other, q, want...)
	}
}

// thereAtReturn counts the queue's messages right after each Publish.
func thereAtReturn(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, "q")
	for i := range 50 {
		e.publish(c, "", msg("q", strconv.Itoa(i)))
		n, err := other.Purge(e.ctx, "q")
		e.must(err, "Purge")
		if n != 1 {
			e.Fatalf("round %d: Publish returned nil, and a Purge that started afterwards found %d messages, want 1", i, n)
		}
	}
}

func propertiesArrive(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, "q", to("x", "q", "the.key"))
	full := &polymq.Message{
		ID: "id-1 ü", Key: "the.key", Body: []byte("body"),
		ContentType: "application/json; charset=utf-8", ContentEncoding: "identity", CorrelationID: "corr \"1\"",
		ReplyTo: "reply.to", Type: "order.paid", AppID: "app/1", Time: time.Unix(1700000000, 0),
		Priority: 7,
	}
	bare := &polymq.Message{Key: "the.key"}
	transient := &polymq.Message{Key: "the.key", Transient: true, Body: []byte("transient")}
	e.publish(c, "x", full, bare, transient)
	s := e.subscriber(c, "q", 10)
	for _, want := range []*polymq.Message{full, bare, transient} {
		d := e.receive(s)
		if d.Exchange != "x" || d.Queue != "q" {
			e.Errorf("Exchange %q, Queue %q, want x, q", d.Exchange, d.Queue)
		}
		if d.Header != nil {
			e.Errorf("Header is %v, want nil where there are none", d.Header)
		}
		e.sameMessage(d, want)
		if !want.Time.IsZero() && (!d.Time.Equal(want.Time) || d.Time.Location() != time.UTC) {
			e.Errorf("Time is %v, want %v in UTC", d.Time, want.Time)
		}
		e.ack(d)
	}
}

// sameMessage compares what was delivered with what was published.
func (e *env) sameMessage(d *polymq.Delivery, want *polymq.Message) {
	e.Helper()
	for _, p := range []struct{ name, got, want string }{
		{"Key", d.Key, want.Key}, {"ContentType", d.ContentType, want.ContentType}, {"ContentEncoding", d.ContentEncoding, want.ContentEncoding},
		{"CorrelationID", d.CorrelationID, want.CorrelationID}, {"ReplyTo", d.ReplyTo, want.ReplyTo}, {"Type", d.Type, want.Type},
		{"AppID", d.AppID, want.AppID}, {"Body", string(d.Body), string(want.Body)},
		{"Priority", strconv.Itoa(int(d.Priority)), strconv.Itoa(int(want.Priority))},
		{"Transient", strconv.FormatBool(d.Transient), strconv.FormatBool(want.Transient)},
	} {
		if p.got != p.want {
			e.Errorf("%s arrived as %.80q, want %.80q", p.name, p.got, p.want)
		}
	}
	if want.ID != "" && d.ID != want.ID {
		e.Errorf("ID arrived as %q, want %q", d.ID, want.ID)
	}
}

func headersArrive(e *env) {
	c := e.open()
	e.declare(c, "q")
	when := time.Unix(1700000001, 0)
	sent := polymq.Header{
		"string": "text", "empty": "", "unicode": "ü 日本 😀", "lines": "a\r\nb: c", "bytes": []byte{0, 1, 255}, "no bytes": []byte{},
		"true": true, "false": false, "int": 5, "int8": int8(-8), "int16": int16(-300), "int32": int32(1 << 30), "int64": int64(-1 << 63), "max": int64(1<<63 - 1),
		"float64": 0.1, "float32": float32(0.5), "whole float": 1.0, "big float": 1e300, "time": when, "nil": nil,
		"table":      polymq.Header{"a": 1, "b": "x", "deeper": polymq.Header{"c": []any{nil, true}}},
		"list":       []any{int64(1), "two", 3.5, false, nil, []byte("x"), when, polymq.Header{"k": "v"}, []any{}},
		"Name: Ünït": "names too", "a.b-c_d/e": "punctuation", "x-mine": "x- is not special",
	}
	want := map[string]any{
		"string": "text", "empty": "", "unicode": "ü 日本 😀", "lines": "a\r\nb: c", "bytes": []byte{0, 1, 255}, "no bytes": []byte{},
		"true": true, "false": false, "int": int64(5), "int8": int64(-8), "int16": int64(-300), "int32": int64(1 << 30), "int64": int64(-1 << 63), "max": int64(1<<63 - 1),
		"float64": 0.1, "float32": 0.5, "whole float": 1.0, "big float": 1e300, "time": when.UTC(), "nil": nil,
		"table":      map[string]any{"a": int64(1), "b": "x", "deeper": map[string]any{"c": []any{nil, true}}},
		"list":       []any{int64(1), "two", 3.5, false, nil, []byte("x"), when.UTC(), map[string]any{"k": "v"}, []any{}},
		"Name: Ünït": "names too", "a.b-c_d/e": "punctuation", "x-mine": "x- is not special",
	}
	e.publish(c, "", &polymq.Message{Key: "q", Header: sent, Body: []byte("with headers")})
	d := e.receive(e.subscriber(c, "q", 1))
	for name, v := range want {
		got, there := d.Header[name]
		switch {
		case !there:
			e.Errorf("header %q is missing", name)
		case !sameValue(got, v):
			e.Errorf("header %q arrived as %T %v, want %T %v", name, got, got, v, v)
		}
	}
	for name := range d.Header {
		if _, there := want[name]; !there {
			e.Errorf("header %q was not sent", name)
		}
	}
	e.ack(d)
}

// sameValue compares header values with their types; a Header is as good as a
// map.
func sameValue(a, b any) bool {
	if m, ok := asTable(a); ok {
		n, ok := asTable(b)
		if !ok || len(m) != len(n) {
			return false
		}
		for k := range m {
			if v, there := n[k]; !there || !sameValue(m[k], v) {
				return false
			}
		}
		return true
	}
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, sameValue)
	case []byte:
		b, ok := b.([]byte)
		return ok && bytes.Equal(a, b)
	case time.Time:
		b, ok := b.(time.Time)
		return ok && a.Equal(b) && a.Location() == b.Location()
	case nil, string, bool, int64, float64:
		return a == b
	}
	return false
}

func asTable(v any) (map[string]any, bool) {
	switch v := v.(type) {
	case polymq.Header:
		return v, true
	case map[string]any:
		return v, true
	}
	return nil, false
}

func bodiesArrive(e *env) {
	c := e.open()
	e.declare(c, "q")
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	sent := [][]byte{nil, {0}, all, []byte("\r\n\r\n"), bytes.Repeat(all, 1024), bytes.Repeat([]byte{0}, 4096)}
	for _, b := range sent {
		e.publish(c, "", &polymq.Message{Key: "q", Body: b})
	}
	s := e.subscriber(c, "q", 2)
	for i, want := range sent {
		d := e.receive(s)
		if !bytes.Equal(d.Body, want) {
			e.Errorf("body %d of %d bytes arrived with %d bytes, or changed", i, len(want), len(d.Body))
		}
		e.ack(d)
	}
}

func messageUntouched(e *env) {
	c := e.open()
	e.declare(c, "q")
	m := &polymq.Message{Key: "q", Body: []byte("body"), Header: polymq.Header{"n": 1, "BCC": []any{"nowhere"}}}
	e.publish(c, "", m, m)
	if m.ID != "" || m.Key != "q" || string(m.Body) != "body" || len(m.Header) != 2 || m.Header["n"] != 1 {
		e.Errorf("Publish changed the message: %+v", m)
	}
	e.has(c, "q", "body", "body")
}

func generatedID(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", numbered(20, "q", "")...)
	seen := map[string]bool{}
	for _, d := range e.drain(c, "q") {
		if d.ID == "" || seen[d.ID] {
			e.Errorf("message %s arrived with ID %q, want one of its own", d.Body, d.ID)
		}
		seen[d.ID] = true
	}
	r, err := e.publisher(c, "").PublishAsync(e.ctx, msg("q", "async"))
	e.must(err, "PublishAsync")
	e.must(r.Wait(e.short()), "Receipt.Wait")
	if d := e.receive(e.subscriber(c, "q", 1)); d.ID != r.ID() {
		e.Errorf("Receipt.ID is %q, the message arrived with %q", r.ID(), d.ID)
	}
}

func endedContext(e *env) {
	c := e.open()
	e.declare(c, "q")
	p := e.publisher(c, "")
	err := p.Publish(e.ended(), msg("q", "late"))
	e.mustBe(err, "Publish with an ended context", polymq.ErrUnconfirmed, context.Canceled)
	if is(err, polymq.ErrRejected, polymq.ErrUnroutable, polymq.ErrNotFound) {
		e.Errorf("an ended context is reported as a refusal: %v", err)
	}
	e.publish(c, "", msg("q", "next"))
	for _, d := range e.drain(c, "q") {
		if b := string(d.Body); b != "late" && b != "next" {
			e.Errorf("received %q", b)
		}
	}
}

// closedUnderWay closes a connection under messages whose outcome is open.
func closedUnderWay(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, "q")
	p := e.publisher(c, "")
	var receipts []*polymq.Receipt
	for _, m := range numbered(200, "q", "") {
		r, err := p.PublishAsync(e.short(), m)
		e.must(err, "PublishAsync")
		receipts = append(receipts, r)
	}
	e.close(c)
	var want []string
	for i, r := range receipts {
		switch err := r.Wait(e.short()); {
		case err == nil:
			want = append(want, strconv.Itoa(i))
		case !errors.Is(err, polymq.ErrUnconfirmed) || is(err, polymq.ErrRejected, polymq.ErrUnroutable):
			e.Fatalf("the connection was closed before the outcome of message %d was known: got %v, want ErrUnconfirmed", i, err)
		}
	}
	got := map[string]int{}
	for _, d := range e.drain(other, "q") {
		got[string(d.Body)]++
	}
	for _, w := range want {
		if got[w] != 1 {
			e.Fatalf("message %s was confirmed and is there %d times", w, got[w])
		}
	}
}

func sameIDAgain(e *env) {
	c, other := e.open(), e.open()
	if w := c.Features().DedupWindow; w <= 0 {
		e.Fatalf("the backend declares deduplication with a window of %v", w)
	}
	e.declare(c, "q")
	for range 3 {
		e.publish(c, "", &polymq.Message{ID: "one", Key: "q", Body: []byte("one")})
		e.publish(other, "", &polymq.Message{ID: "one", Key: "q", Body: []byte("one")})
	}
	e.publish(c, "", &polymq.Message{ID: "two", Key: "q", Body: []byte("two")}, &polymq.Message{ID: "two", Key: "q", Body: []byte("two")})
	e.has(c, "q", "one", "two")
}

// sameIDOtherQueue shows that an ID is compared within a queue only.
func sameIDOtherQueue(e *env) {
	c := e.open()
	e.declare(c, "a", "b")
	for _, q := range []string{"a", "b"} {
		e.publish(c, "", &polymq.Message{ID: "one", Key: q, Body: []byte(q)})
	}
	e.has(c, "a", "a")
	e.has(c, "b", "b")
}

func hangingBroker(e *env) {
	e.declare(e.open(), "q")
	through, pause, resume := e.b.Pause(e.TB, e.namespace())
	c := e.openAt(through)
	p := e.publisher(c, "")
	e.publish(c, "", msg("q", "before"))
	pause()
	ctx, cancel := context.WithTimeout(e.ctx, e.b.Patience/10)
	err := p.Publish(ctx, msg("q", "meanwhile"))
	cancel()
	resume()
	e.mustBe(err, "Publish while the broker hangs", polymq.ErrUnconfirmed)
	if is(err, polymq.ErrRejected, polymq.ErrUnroutable) {
		e.Errorf("an unknown outcome is reported as a refusal: %v", err)
	}
	e.publish(c, "", msg("q", "after"))
	ds := e.drain(e.open(), "q")
	if len(ds) < 2 || len(ds) > 3 || string(ds[0].Body) != "before" {
		e.Fatalf("got %d messages, want before, after, and perhaps meanwhile", len(ds))
	}
}

// severedPublishes cuts the connection again and again under a publisher.
func severedPublishes(e *env) {
	admin := e.open()
	e.declare(admin, "q")
	through, sever := e.b.Sever(e.TB, e.namespace())
	c := e.openAt(through)
	p := e.publisher(c, "")
	var want []string
	for i := range 60 {
		if i%20 == 10 {
			sever()
		}
		m := msg("q", strconv.Itoa(i))
		switch err := p.Publish(e.short(), m); {
		case err == nil:
			want = append(want, string(m.Body))
		case !errors.Is(err, polymq.ErrUnconfirmed) || is(err, polymq.ErrRejected, polymq.ErrUnroutable):
			e.Fatalf("publish %d over a severed connection: got %v, want nil or ErrUnconfirmed", i, err)
		}
	}
	if len(want) < 50 {
		e.Errorf("only %d of 60 publishes were confirmed: the publisher does not come back", len(want))
	}
	got := map[string]int{}
	for _, d := range e.drain(admin, "q") {
		got[string(d.Body)]++
	}
	for _, w := range want {
		if got[w] == 0 {
			e.Errorf("message %s was confirmed and is not there", w)
		}
		if got[w] > 1 && admin.Features().Has(polymq.FeatureDedup) {
			e.Errorf("message %s is there %d times, in spite of its ID", w, got[w])
		}
	}
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

func manyBindings(e *env) {
	c := e.open()
	e.declare(c,
		routing.Exchange{Name: "t", Kind: routing.Topic}, routing.Exchange{Name: "f", Kind: routing.Fanout}, routing.Exchange{Name: "h", Kind: routing.Headers}, "q", "r",
		to("t", "q", "a.b"), to("t", "q", "a.*"), to("t", "q", "#"), to("t", "q", "*.b"), to("t", "r", "#.b"),
		to("f", "q", ""), to("f", "q", "1"), to("f", "q", "2"),
		routing.Binding{Exchange: "h", Queue: "q", Args: map[string]any{"x-match": "any", "a": 1, "b": 1}},
		routing.Binding{Exchange: "h", Queue: "q", Args: map[string]any{"x-match": "all", "a": 1}},
		routing.Binding{Exchange: "h", Queue: "q", Key: "again", Args: map[string]any{"x-match": "all", "a": 1}},
	)
	e.publish(c, "t", msg("a.b", "topic"))
	e.publish(c, "f", msg("a.b", "fanout"))
	e.publish(c, "h", &polymq.Message{Header: polymq.Header{"a": 1, "b": 1}, Body: []byte("headers")})
	e.publish(c, "t", numbered(50, "a.b", "")...)
	e.has(c, "q", append([]string{"topic", "fanout", "headers"}, bodies(numbered(50, "", ""))...)...)
	e.has(c, "r", append([]string{"topic"}, bodies(numbered(50, "", ""))...)...)
}

func manyPaths(e *env) {
	c := e.open()
	e.declare(c,
		routing.Exchange{Name: "in", Kind: routing.Fanout}, routing.Exchange{Name: "left", Kind: routing.Direct},
		routing.Exchange{Name: "right", Kind: routing.Topic}, routing.Exchange{Name: "out", Kind: routing.Fanout}, "q",
		routing.Binding{Exchange: "in", ToExchange: "left"}, routing.Binding{Exchange: "in", ToExchange: "right"},
		routing.Binding{Exchange: "left", ToExchange: "out", Key: "k"}, routing.Binding{Exchange: "right", ToExchange: "out", Key: "#"},
		to("out", "q", ""), to("left", "q", "k"), to("in", "q", ""),
	)
	e.publish(c, "in", numbered(20, "k", "")...)
	e.has(c, "q", bodies(numbered(20, "", ""))...)
}

func manyKeys(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, "q", to("x", "q", "a"), to("x", "q", "b"), to("x", "q", "c"))
	e.publish(c, "x", &polymq.Message{Key: "a", Header: polymq.Header{"CC": []any{"b", "a"}, "BCC": []any{"c"}}, Body: []byte("bound")})
	e.publish(c, "", &polymq.Message{Key: "q", Header: polymq.Header{"CC": []any{"q"}, "BCC": []any{"q"}}, Body: []byte("default")})
	e.has(c, "q", "bound", "default")
}

func orderOfSingles(e *env) {
	c := e.open()
	e.declare(c, "q")
	ms := numbered(300, "q", "")
	for _, m := range ms {
		e.publish(c, "", m)
	}
	e.has(e.open(), "q", bodies(ms)...)
}

func orderOfBatches(e *env) {
	c := e.open()
	e.declare(c, "q")
	ms := numbered(2000, "q", "")
	for batch := range slices.Chunk(ms, 150) {
		e.publish(c, "", batch...)
	}
	e.has(e.open(), "q", bodies(ms)...)
}

func orderOfAsync(e *env) {
	c := e.open()
	e.declare(c, "q")
	ms := numbered(2000, "q", "")
	s := e.subscriber(e.open(), "q", 50)
	for _, m := range ms {
		_, err := e.publisher(c, "").PublishAsync(e.ctx, m)
		e.must(err, "PublishAsync")
	}
	for _, m := range ms {
		e.ack(e.body(s, string(m.Body)))
	}
}

// orderOfFanOut routes each message to other queues, so that a publisher that
// works on queues side by side is seen to mix them up.
func orderOfFanOut(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Topic}, "all", "odd", "even", to("x", "all", "#"), to("x", "odd", "odd"), to("x", "even", "even"))
	want := map[string][]string{}
	for i := range 400 {
		key := []string{"even", "odd"}[i%2]
		m := msg(key, strconv.Itoa(i))
		want[key], want["all"] = append(want[key], string(m.Body)), append(want["all"], string(m.Body))
		_, err := e.publisher(c, "x").PublishAsync(e.ctx, m)
		e.must(err, "PublishAsync")
	}
	e.must(e.publisher(c, "x").Flush(e.short()), "Flush")
	for _, q := range []string{"all", "odd", "even"} {
		e.has(c, q, want[q]...)
	}
}

func orderOfRedelivered(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", numbered(4, "q", "")...)
	s := e.subscriber(c, "q", 1)
	e.nack(e.body(s, "0"), 0)
	want := []string{"0", "1", "2", "3"}
	switch r := c.Features().Requeue; r {
	case "first":
	case "last":
		want = []string{"1", "2", "3", "0"}
	default:
		e.Fatalf("Features.Requeue is %q, want first or last", r)
	}
	for _, w := range want {
		e.ack(e.body(s, w))
	}
}

// boundedByWindow counts, whenever PublishAsync returns, the messages whose
// outcome is open.
func boundedByWindow(e *env) {
	c := e.open()
	e.declare(c, "q")
	for _, window := range []int{1, 7} {
		p, err := c.Publisher(e.ctx, "", &polymq.PublisherOptions{Window: window})
		e.must(err, "Publisher")
		var receipts []*polymq.Receipt
		for i, m := range numbered(100, "q", "") {
			r, err := p.PublishAsync(e.short(), m)
			e.must(err, "PublishAsync")
			receipts = append(receipts, r)
			pending := 0
			for _, r := range receipts {
				select {
				case <-r.Done():
				default:
					pending++
				}
			}
			if pending > window {
				e.Fatalf("after message %d, %d messages are under way, more than the window of %d", i, pending, window)
			}
		}
		// A batch larger than the window is no deadlock.
		e.must(p.Publish(e.short(), numbered(50, "q", "")...), "Publish of a batch of 50 with a window of %d", window)
		e.must(p.Flush(e.short()), "Flush")
	}
	if n := len(e.drain(c, "q")); n != 300 {
		e.Errorf("got %d messages, want 300", n)
	}
}

func flushWaits(e *env) {
	c := e.open()
	e.declare(c, "q")
	p := e.publisher(c, "")
	for range 5 {
		var receipts []*polymq.Receipt
		for _, m := range numbered(100, "q", "") {
			r, err := p.PublishAsync(e.short(), m)
			e.must(err, "PublishAsync")
			receipts = append(receipts, r)
		}
		e.must(p.Flush(e.short()), "Flush")
		for i, r := range receipts {
			select {
			case <-r.Done():
				e.must(r.Err(), "message %d", i)
			default:
				e.Fatalf("Flush returned before the outcome of message %d was known", i)
			}
		}
	}
}

func fullWindow(e *env) {
	e.declare(e.open(), "q")
	through, pause, resume := e.b.Pause(e.TB, e.namespace())
	c := e.openAt(through)
	p, err := c.Publisher(e.ctx, "", &polymq.PublisherOptions{Window: 2})
	e.must(err, "Publisher")
	e.must(p.Publish(e.short(), msg("q", "before")), "Publish")
	pause()
	for range 2 {
		_, err := p.PublishAsync(e.short(), msg("q", "in the window"))
		e.must(err, "PublishAsync into the window")
	}
	ctx, cancel := context.WithTimeout(e.ctx, e.b.Patience/10)
	_, err = p.PublishAsync(ctx, msg("q", "too many"))
	cancel()
	resume()
	e.mustBe(err, "PublishAsync at a full window", context.DeadlineExceeded)
	e.must(p.Flush(e.short()), "Flush once the broker answers again")
	e.has(e.open(), "q", "before", "in the window", "in the window")
}
