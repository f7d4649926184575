package redis

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// script calls the functions on one queue as clients do, one call at a time.
type script struct {
	t     testing.TB
	s     *store
	q     *emulate.Queue
	h     *queue
	batch int
}

// newScript makes a queue in a namespace of its own.
func newScript(t testing.TB, rq routing.Queue) *script {
	t.Helper()
	return newScriptAt(t, testbroker.URL(t, "redis")+"&lease=2s", rq)
}

func newScriptAt(t testing.TB, url string, rq routing.Queue) *script {
	t.Helper()
	_, s := dial(t, url)
	rq.Name = "q"
	x := &script{t: t, s: s, q: &emulate.Queue{Queue: rq, Incarnation: random(8)}}
	s.Attach(x.q)
	x.h = x.q.Handle.(*queue)
	if err := s.CreateQueue(ctxT(t), x.q); err != nil {
		t.Fatal(err)
	}
	return x
}

// now is the server's time, exactly: Store.Now estimates it.
func (x *script) now() time.Time {
	x.t.Helper()
	now, err := x.s.calls().Time(ctxT(x.t)).Result()
	if err != nil {
		x.t.Fatal(err)
	}
	return now
}

func (x *script) call(fn string, args ...any) any {
	x.t.Helper()
	v, err := x.s.fcall(ctxT(x.t), fn, x.h.key, args...)
	if err != nil {
		x.t.Fatalf("%s: %v", fn, err)
	}
	return v
}

// publish appends a batch: each is a body and further fields, "a priority=3". It
// returns the bodies of those that were refused.
func (x *script) publish(messages ...string) string {
	x.t.Helper()
	x.batch++
	args := []any{"lane", x.batch, window}
	for _, m := range messages {
		parts := strings.Fields(m)
		args = append(args, "", 2*len(parts))
		for _, field := range parts[1:] {
			name, value, _ := strings.Cut(field, "=")
			args = append(args, name, value)
		}
		args = append(args, "body", parts[0])
	}
	v := x.call(x.h.fns.append, args...)
	if v == int64(1) {
		return ""
	}
	failed, ok := v.([]any)
	if !ok {
		x.t.Fatalf("append: %v", v)
	}
	var out []string
	for i := 0; i < len(failed); i += 2 {
		if text := failed[i+1].(string); !strings.HasPrefix(text, "POLYMQFULL") {
			x.t.Fatalf("append: %s", text)
		}
		out = append(out, strings.Fields(messages[failed[i].(int64)])[0])
	}
	return strings.Join(out, " ")
}

func (x *script) join(consumer string) {
	x.t.Helper()
	if v := x.call(x.h.fns.join, consumer, "60000"); v != int64(1) {
		x.t.Fatalf("join: %v", v)
	}
}

// fetch takes what there is and returns it as "body:attempt", and settles: each
// "id count delay" is given back.
func (x *script) fetch(consumer string, room int, back ...string) string {
	x.t.Helper()
	args := []any{consumer, "60000", "0", "0", room}
	if hasRules(x.q) {
		args = append(args, room)
	}
	args = append(args, 0)
	for _, b := range back {
		for _, f := range strings.Fields(b) {
			args = append(args, f)
		}
	}
	list, ok := x.call(x.h.fns.fetch, args...).([]any)
	if !ok {
		x.t.Fatal("fetch by a consumer that is not there")
	}
	counts := list[2].([]any)
	var out []string
	for i, e := range append(list[3].([]any), list[4].([]any)...) {
		count := any(int64(1))
		if i < len(counts) {
			count = counts[i]
		}
		out = append(out, fmt.Sprintf("%s:%d", body(e), count))
	}
	return strings.Join(out, " ")
}

// beat is the call of a consumer that takes nothing, and returns how long it may
// wait with the next one, in ms.
func (x *script) beat(consumer string) int64 {
	x.t.Helper()
	fn, args := x.h.fns.tend, []any{consumer, "60000", "0", "0", "0", "0"}
	if hasRules(x.q) {
		fn, args = x.h.fns.fetch, append(args, "0")
	}
	list, ok := x.call(fn, args...).([]any)
	if !ok {
		x.t.Fatal("a beat of a consumer that is not there")
	}
	return list[0].(int64)
}

func body(entry any) string {
	fields := entry.([]any)[1].([]any)
	return fields[len(fields)-1].(string)
}

// held is the IDs that a member of the group holds.
func (x *script) held(consumer string) []string {
	x.t.Helper()
	v, err := x.s.call(ctxT(x.t), x.h.key, "XPENDING", x.h.key, group, "-", "+", 100000, consumer)
	if err != nil {
		x.t.Fatal(err)
	}
	var ids []string
	for _, e := range v.([]any) {
		ids = append(ids, e.([]any)[0].(string))
	}
	return ids
}

func (x *script) expect(what, got, want string) {
	x.t.Helper()
	if got != want {
		x.t.Fatalf("%s: got %q, want %q", what, got, want)
	}
}

// sweep returns what the queue gave up, "body:reason".
func (x *script) sweep(most int) (string, emulate.Swept) {
	x.t.Helper()
	swept, err := x.s.Sweep(ctxT(x.t), x.q, most)
	if err != nil {
		x.t.Fatal(err)
	}
	var out []string
	for _, d := range swept.Dead {
		out = append(out, fmt.Sprintf("%s:%s", d.Message.Body, d.Reason))
	}
	return strings.Join(out, " "), swept
}

func (x *script) ready() int {
	x.t.Helper()
	info, err := x.s.Inspect(ctxT(x.t), x.q)
	if err != nil {
		x.t.Fatal(err)
	}
	return info.Ready
}

// until waits for the condition.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}
