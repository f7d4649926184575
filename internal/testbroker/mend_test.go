package testbroker

import (
	"context"
	"strings"
	"testing"
)

// TestMend: a Redis whose append-only file was torn by a full disk starts again, with
// what it had before. One that made the file anew when there was room has all, as
// docs/OPERATIONS.md says.
func TestMend(t *testing.T) {
	for _, anew := range []bool{false, true} {
		b := StartWith(t, "redis", Setup{Disk: 64 << 20})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		s := b.server
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		persistence := func(part string) {
			t.Helper()
			must(retry(ctx, func(ctx context.Context) error { return contains(ctx, s, part, "INFO", "persistence") }))
		}
		rewrite := func() {
			t.Helper()
			must(tell(ctx, s, "BGREWRITEAOF"))
			persistence("aof_rewrite_in_progress:0")
		}
		rewrite() // the file of its start is not torn
		must(tell(ctx, s, "SET", "before", "kept"))
		b.FullDisk(func() {
			for tell(ctx, s, "SET", newName(), strings.Repeat("x", 8192)) == nil {
			}
		})
		persistence("aof_last_write_status:ok")
		if anew {
			rewrite()
		}
		must(tell(ctx, s, "SET", "after", "kept"))
		b.Kill()
		b.Start()
		for _, key := range []string{"before", "after"} {
			v, err := do(ctx, s, "GET", key)
			must(err)
			if v != "kept" && (anew || key == "before") {
				t.Errorf("made anew: %t; mended: %d; what was written %s: %v", anew, s.mended, key, v)
			}
		}
	}
}
