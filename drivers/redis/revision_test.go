package redis

import (
	"fmt"
	"testing"

	"github.com/polymq/polymq/routing"
)

// TestRevision3: programs of the library's revision 3, which knew no rules, call
// what they always called, and have the answers that they read.
func TestRevision3(t *testing.T) {
	x := newScript(t, routing.Queue{})
	key := x.h.key
	do := func(want string, args ...any) {
		t.Helper()
		v, err := x.s.calls().Do(ctxT(t), args...).Result()
		if err != nil || fmt.Sprint(v) != want {
			t.Fatalf("%v: %v, %v, want %s", args, v, err, want)
		}
	}
	fcall := func(want, fn string, args ...any) {
		t.Helper()
		do(want, append([]any{"FCALL", "polymq1_" + fn, "1", key}, args...)...)
	}
	// Made by it, as far as it made it.
	if err := x.s.calls().Del(ctxT(t), key+":usage").Err(); err != nil {
		t.Fatal(err)
	}
	fcall("1", "create")
	fcall("1", "append", "lane", "1", "20000", "", "2", "body", "a", "", "4", "key", "k", "body", "b", "id", "2", "body", "c")
	fcall("1", "append", "lane", "1", "20000", "", "2", "body", "a", "", "4", "key", "k", "body", "b", "id", "2", "body", "c")
	fcall("[3 0 0]", "inspect")
	fcall("1", "join", "c-1", "30000")
	fcall("[1000 0]", "tend", "c-1", "30000", "0", "0", "64", "0")
	if err := x.s.calls().Do(ctxT(t), "XREADGROUP", "GROUP", "polymq", "c-1", "COUNT", "64", "STREAMS", key, ">").Err(); err != nil {
		t.Fatal(err)
	}
	ids := x.held("c-1")
	fcall("1", "extend", "c-1", "30000")
	fcall("1", "settle", "c-1", "30000", "1", ids[0], ids[1], "1", "0")
	fcall("[1 1 1]", "inspect")
	fcall(fmt.Sprintf("[1000 0 [2] [[%s [key k body b]]] []]", ids[1]), "fetch", "c-1", "30000", "1", "1", "10", "0")
	fcall("1", "rename", "c-1", "c-2", "30000", ids[1])
	fcall("-1", "extend", "c-1", "30000")
	fcall("1", "leave", "c-2", ids[1])
	fcall("[2 0 0]", "inspect")
	fcall("0", "delete", "0", "1")
	fcall("[2]", "purge")
	fcall("1", "delete", "1", "1")
	fcall("0", "inspect")
	fcall("[-1]", "purge")
}
