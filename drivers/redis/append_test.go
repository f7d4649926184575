package redis

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
)

// TestTooManyFields: what the server could not take is refused, and what is
// published with it is not.
func TestTooManyFields(t *testing.T) {
	conn, _ := dial(t, testbroker.URL(t, "redis"))
	declare(t, conn, "q")
	many := text("many")
	many.Header = map[string]any{}
	for i := range maxFields {
		many.Header[fmt.Sprint(i)] = "x"
	}
	if err := publish(t, conn, "q", text("a"), many, text("b")); !errors.Is(err, driver.ErrTooLarge) {
		t.Fatalf("Publish: %v", err)
	}
	delete(many.Header, "0")
	delete(many.Header, "1")
	if err := publish(t, conn, "q", many); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, conn, "q", 10)
	ds := expect(t, sub, "a", "b", "many")
	if n := len(ds[2].Message.Header); n != len(many.Header) {
		t.Errorf("%d headers arrived of %d", n, len(many.Header))
	}
}

// TestRetryTellsTheSame: the answer to a batch that is sent again is that to
// the first try, also where that was stored in part only.
func TestRetryTellsTheSame(t *testing.T) {
	_, s := dial(t, testbroker.URL(t, "redis"))
	ctx := ctxT(t)
	q := &emulate.Queue{Incarnation: "part"}
	s.Attach(q)
	if err := s.CreateQueue(ctx, q); err != nil {
		t.Fatal(err)
	}
	send := func(seq string, items ...any) any {
		t.Helper()
		v, err := s.calls().Do(ctx, append([]any{"FCALL", plainFunctions.append, "1", q.Handle.(*queue).key, "lane", seq, window}, items...)...).Result()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	stored := func(want int64) {
		t.Helper()
		if n := s.calls().XLen(ctx, q.Handle.(*queue).key).Val(); n != want {
			t.Fatalf("%d entries, want %d", n, want)
		}
	}
	good := []any{"", "2", "body", "x"}
	bad := []any{"", "6002"}
	for range 6002 {
		bad = append(bad, "x")
	}
	batch := append(append(append([]any{}, good...), bad...), good...)
	first := send("1", batch...)
	if l, ok := first.([]any); !ok || len(l) != 2 || l[0] != int64(1) {
		t.Fatalf("first try: %v", first)
	}
	stored(2)
	// One has given up meanwhile and is an empty place.
	retry := append(append([]any{"", "0"}, bad...), good...)
	if again := send("1", retry...); !reflect.DeepEqual(first, again) {
		t.Fatalf("again: %v, first %v", again, first)
	}
	stored(2)
	if v := send("2", retry...); !reflect.DeepEqual(first, v) { // its first try never arrived
		t.Fatalf("second batch: %v", v)
	}
	stored(3)
	if v := send("3", good...); v != int64(1) {
		t.Fatalf("third batch: %v", v)
	}
	if v := send("3", good...); v != int64(1) {
		t.Fatalf("third batch again: %v", v)
	}
	stored(4)
	if v := send("4", good...); v != int64(1) { // the second try
		t.Fatalf("fourth batch: %v", v)
	}
	stored(5)
	if v := send("4", good...); v != int64(1) { // the first, held up on its way
		t.Fatalf("fourth batch, late: %v", v)
	}
	if v := send("3", good...); v != int64(1) { // and one that is later still
		t.Fatalf("third batch, late: %v", v)
	}
	stored(5)
	if err := s.DeleteQueue(ctx, q, emulate.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if v := send("5", good...); v != int64(0) {
		t.Fatalf("to a deleted queue: %v", v)
	}
	if keys := s.calls().Keys(ctx, q.Handle.(*queue).key+"*").Val(); len(keys) > 0 {
		t.Errorf("a deleted queue is there again: %v", keys)
	}
}

// TestLanesAreForgotten: by Close, and where a connection ended without it, by
// the sweep of a consumer.
func TestLanesAreForgotten(t *testing.T) {
	url := testbroker.URL(t, "redis")
	conn, s := dial(t, url)
	declare(t, conn, "q")
	other, _ := dial(t, url)
	if err := publish(t, other, "q", text("a")); err != nil {
		t.Fatal(err)
	}
	ctx := ctxT(t)
	keys := s.calls().Keys(ctx, s.cfg.prefix+":*:lanes").Val()
	if len(keys) != 1 || s.calls().HLen(ctx, keys[0]).Val() != 1 {
		t.Fatalf("after a publish: %v", keys)
	}
	if err := other.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if left := s.calls().HGetAll(ctx, keys[0]).Val(); len(left) != 0 {
		t.Errorf("after Close: %v", left)
	}
	if err := publish(t, conn, "q", text("b")); err != nil {
		t.Fatal(err)
	}
	if err := s.calls().HSet(ctx, keys[0], "old", "7 1500000000000-0").Err(); err != nil {
		t.Fatal(err)
	}
	key := keys[0][:len(keys[0])-len(":lanes")]
	if err := s.calls().Do(ctx, "FCALL", plainFunctions.join, "1", key, "c", "1000").Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.calls().Do(ctx, "FCALL", plainFunctions.tend, "1", key, "c", "1000", "1", "0", "0", "0").Err(); err != nil {
		t.Fatal(err)
	}
	left := s.calls().HGetAll(ctx, keys[0]).Val()
	if _, ok := left["old"]; ok || len(left) != 1 {
		t.Errorf("after a sweep: %v", left)
	}
}
