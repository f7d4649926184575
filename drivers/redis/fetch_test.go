package redis

import (
	"testing"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
)

// onlyStream is the key of the one queue there is.
func onlyStream(t *testing.T, s *store) string {
	t.Helper()
	streams, err := s.calls().Keys(ctxT(t), s.cfg.prefix+":*}").Result()
	if err != nil || len(streams) != 1 {
		t.Fatal(streams, err)
	}
	return streams[0]
}

// TestGivenBackByOthersIsFirst: what another gave back goes before new entries
// that were read together with the news of it, and neither counts.
func TestGivenBackByOthersIsFirst(t *testing.T) {
	conn, s := dial(t, testbroker.URL(t, "redis"))
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a"), text("b"), text("c")); err != nil {
		t.Fatal(err)
	}
	ctx, key := ctxT(t), onlyStream(t, s)
	for _, args := range [][]any{
		{"FCALL", plainFunctions.join, "1", key, "other", "30000"},
		{"XREADGROUP", "GROUP", group, "other", "COUNT", "1", "STREAMS", key, ">"},
		{"FCALL", plainFunctions.leave, "1", key, "other"},
	} {
		if err := s.calls().Do(ctx, args...).Err(); err != nil {
			t.Fatal(args, err)
		}
	}
	sub := subscribe(t, conn, "q", 10)
	for _, d := range expect(t, sub, "a", "b", "c") {
		if d.Attempt != 1 || d.Redelivered {
			t.Errorf("%s: attempt %d, redelivered %v", d.Message.Body, d.Attempt, d.Redelivered)
		}
		settle(t, sub, driver.Ack, d)
	}
	info(t, conn, "q", driver.QueueInfo{Consumers: 1})
}

// TestReadWithoutFunctions: what was read in one go with a call of a function
// that was missing is neither lost nor counted.
func TestReadWithoutFunctions(t *testing.T) {
	b := testbroker.Start(t, "redis")
	conn, s := dial(t, b.URL())
	declare(t, conn, "q")
	sub := subscribe(t, conn, "q", 1)
	for range 5 {
		if err := publish(t, conn, "q", text("a"), text("b")); err != nil {
			t.Fatal(err)
		}
		a := expect(t, sub, "a")
		if err := s.calls().FunctionFlush(ctxT(t)).Err(); err != nil {
			t.Fatal(err)
		}
		settle(t, sub, driver.Ack, a...)
		d := receive(t, sub)
		if string(d.Message.Body) != "b" || d.Attempt != 1 {
			t.Fatalf("got %q, attempt %d", d.Message.Body, d.Attempt)
		}
		settle(t, sub, driver.Ack, d)
	}
	info(t, conn, "q", driver.QueueInfo{Consumers: 1})
}

// TestReadAfterTheBlow: what was read under a name after that was struck goes
// back, uncounted, when its owner joins again.
func TestReadAfterTheBlow(t *testing.T) {
	conn, s := dial(t, testbroker.URL(t, "redis"))
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a")); err != nil {
		t.Fatal(err)
	}
	ctx, key := ctxT(t), onlyStream(t, s)
	for _, args := range [][]any{
		{"XREADGROUP", "GROUP", group, "struck", "STREAMS", key, ">"},
		{"FCALL", plainFunctions.join, "1", key, "next", "30000", "struck"},
	} {
		if err := s.calls().Do(ctx, args...).Err(); err != nil {
			t.Fatal(args, err)
		}
	}
	sub := subscribe(t, conn, "q", 10)
	if d := receive(t, sub); string(d.Message.Body) != "a" || d.Attempt != 1 {
		t.Fatalf("got %+v", d)
	}
}
