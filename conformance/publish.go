package conformance

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
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
