package oracle

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
)

// TestPrints: a script prints as a Go test.
func TestPrints(t *testing.T) {
	var tests []string
	for seed := range uint64(300) {
		s, _ := Generate(seed, Options{}, nil)
		tests = append(tests, goTest(fmt.Sprintf("Printed%d", seed), "mem", s))
	}
	vet(t, tests)
	s := Script{Classic: true, Ops: []Op{
		Publish{Exchange: "x", Messages: []polymq.Message{{ID: "m", Header: polymq.Header{"n": int64(1), "v": nil, "l": []any{true}, "b": []byte("a\x00")}, TTL: 1500 * time.Millisecond, Time: time.Unix(7, 0)}}},
		Wait{},
	}}
	const want = `func TestOne(t *testing.T) {
	replay(t, "redis", Script{Classic: true, Ops: []Op{
		Publish{Exchange: "x", Messages: []polymq.Message{{ID: "m", Header: polymq.Header{"b": []byte("a\x00"), "l": []any{true}, "n": int64(1), "v": nil}, Time: time.Unix(7, 0).UTC(), TTL: 1500 * time.Millisecond}}},
		Wait{},
	}})
}
`
	if got := goTest("One", "redis", s); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// vet wants printed tests to compile in this package, and go vet to find nothing
// in them.
func vet(t *testing.T, tests []string) {
	t.Helper()
	text := "package oracle\n\nimport (\n"
	body := strings.Join(tests, "\n")
	for _, path := range []string{"testing", "time", "github.com/polymq/polymq", "github.com/polymq/polymq/routing"} {
		if strings.Contains(body, filepath.Base(path)+".") {
			text += fmt.Sprintf("\t%q\n", path)
		}
	}
	dir := t.TempDir()
	here, err := filepath.Abs("printed_test.go")
	if err != nil {
		t.Fatal(err)
	}
	printed, list := filepath.Join(dir, "printed_test.go"), filepath.Join(dir, "overlay.json")
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {here: printed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{printed: text + ")\n\n" + body, list: string(overlay)} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "go", "vet", "-overlay", list, ".").CombinedOutput(); err != nil {
		t.Errorf("go vet: %v\n%.3000s", err, out)
	}
}
