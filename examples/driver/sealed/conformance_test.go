package sealed_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/conformance"
	"github.com/polymq/polymq/drivers/mem"
	"github.com/polymq/polymq/examples/driver/sealed"
	"github.com/polymq/polymq/routing"
)

var namespaces atomic.Int64

// The whole test of a driver: the suite, and the faults that this one can make.
func TestConformance(t *testing.T) {
	fresh := func(t testing.TB) string {
		name := fmt.Sprintf("sealed-%d", namespaces.Add(1))
		t.Cleanup(func() { mem.Remove(name) })
		return "sealed+mem://" + name
	}
	conformance.Run(t, conformance.Backend{
		Namespace: fresh,
		Sever: func(t testing.TB, url string) (string, func()) {
			return url, func() { mem.Sever(strings.TrimPrefix(url, "sealed+mem://")) }
		},
		Restart: func(t testing.TB) (string, func()) {
			url := fresh(t)
			return url, func() { mem.Restart(strings.TrimPrefix(url, "sealed+mem://")) }
		},
		Known: map[string]string{
			"02_ThreeOutcomes/full-bytes":   "MaxBytes counts the seals",
			"17_DeadLetters/overflow-bytes": "MaxBytes counts the seals",
		},
	})
}

// What the broker holds is not what was published, and another key, or another
// message's body, does not open.
func TestSealed(t *testing.T) {
	key := func(digit string) string {
		file := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(file, []byte(strings.Repeat(digit, 64)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	open := func(url string) *polymq.Conn {
		c, err := polymq.Open(t.Context(), url, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(t.Context()) })
		return c
	}
	receive := func(c *polymq.Conn) *polymq.Delivery {
		s, err := c.Subscriber(t.Context(), "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		d, err := s.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(t.Context()); err != nil { // gives it back
			t.Fatal(err)
		}
		return d
	}
	ours := open("sealed+mem://test?key-file=" + key("a"))
	if err := ours.Declare(t.Context(), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}); err != nil {
		t.Fatal(err)
	}
	pub, err := ours.Publisher(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := pub.Publish(t.Context(), &polymq.Message{Key: "q", Body: []byte("secret")}); err != nil {
		t.Fatal(err)
	}
	if got := receive(ours); string(got.Body) != "secret" || got.Header[sealed.Broken] != nil {
		t.Errorf("with the key: got %q, %v", got.Body, got.Header)
	}
	if got := receive(open("mem://test")); strings.Contains(string(got.Body), "secret") || len(got.Body) == 0 {
		t.Errorf("the broker holds %q", got.Body)
	}
	if got := receive(open("sealed+mem://test?key-file=" + key("b"))); len(got.Body) != 0 || got.Header[sealed.Broken] == nil {
		t.Errorf("with another key: got %q, %v", got.Body, got.Header)
	}
}

// Its lines are counted, all of them.
func TestUnder300Lines(t *testing.T) {
	lines := 0
	for _, name := range []string{"open.go", "conn.go"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines += strings.Count(string(text), "\n")
	}
	if lines >= 300 {
		t.Errorf("the driver has %d lines", lines)
	}
	t.Logf("%d lines", lines)
}
