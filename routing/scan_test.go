package routing

import (
	"strings"
	"testing"
)

// The hash of a word is the same wherever it stands, and no other word's.
func FuzzScan(f *testing.F) {
	for _, key := range []string{
		"", ".", "a", "a.", ".a", "12345678", "12345678.", "1234567.9", "123456789.", "1234567890123456.x",
		"\x2f\x2e\x2f", "\xae\xae.", "\x2d\x2d.\x2d\x2f.", "a\x00", "a\x00\x00.b", strings.Repeat("word", 60) + ".x",
	} {
		f.Add(key, "a")
	}
	f.Fuzz(func(t *testing.T, key, other string) {
		want, _, _ := strings.Cut(key, ".")
		n, hash := scan(key)
		if n != len(want) {
			t.Fatalf("the first word of %q has %d bytes, not %d", key, len(want), n)
		}
		for _, again := range []string{want, want + ".", want + ".x", want + "." + key} {
			if _, h := scan(again); h != hash {
				t.Errorf("the first word of %q has another hash in %q", key, again)
			}
		}
		if other, _, _ := strings.Cut(other, "."); other != want && wordHash(other) == hash {
			t.Errorf("%q and %q have one hash", want, other)
		}
	})
}
