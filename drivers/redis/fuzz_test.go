package redis

import (
	"strings"
	"testing"
)

// resp writes an answer in fewer bytes: a line ends with a semicolon.
func resp(s string) []byte { return []byte(strings.ReplaceAll(s, ";", "\r\n")) }

// FuzzAnswer: whatever a server answers to a read, or to the function sweep, is
// an error or read, be it somebody else's entry.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"*1;*2;$3;key;*1;*2;$3;1-0;*4;$1;b;$4;body;$4;time;$2;12;", "*2;*1;:1;*1;*2;$3;5-1;*2;$1;x;$1;y;", "*-1;", "$-1;", "-ERR no;", ":0;", "*0;", "",
		"*6;:1;:1700000000000;:0;*1;$7;expired;*1;:2;*1;*2;$3;1-0;*2;$1;b;$1;x;", "*6;:1;:1;:0;*-1;*-1;*-1;", "$9223372036854775807;x;",
		"*1;*2;$9223372036854775806;", "*1;*2;$3;1-0;*1;$9223372036854775807;", "*99999999999;", "*1;*2;$1;x;*0;", "*1;*2;$40;18446744073709551615-18446744073709551615;*0;",
	} {
		f.Add(resp(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a := answer{b: b}
		if s, err := a.swept("q"); err == nil {
			for _, d := range s.Dead {
				if d.Queue != "q" || d.Ref.(*hold).id == "" {
					t.Errorf("%q is read as %+v", b, d)
				}
			}
		}
		for _, counts := range [][]int{nil, {1, 2}} {
			var r fetch
			a = answer{b: b}
			r.takeAll(&a, counts)
			_ = failed(a.err)
			if len(r.ds) != len(r.holds) {
				t.Errorf("%d deliveries and %d holds", len(r.ds), len(r.holds))
			}
		}
		var r fetch
		a = answer{b: b}
		if n, err := a.stream(); err == nil {
			r.take(&a, n, nil)
		}
		if _, err := server(string(b)); err == nil && len(b) == 0 {
			t.Error("a server of no version is new enough")
		}
		for _, text := range strings.Split(string(b), "\r\n") {
			_ = mapped(serverError(text))
			_ = refused(serverError(text))
		}
	})
}
