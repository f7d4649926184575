// Package guides runs the code of the pages beside it: what a page shows stands,
// line by line, in the test of the same name, which runs it on real brokers.
package guides

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/mem"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
	"github.com/polymq/polymq/internal/testbroker"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

// everywhere runs a page's code on each backend, in a namespace of its own.
func everywhere(t *testing.T, f func(t *testing.T, ctx context.Context, conn *polymq.Conn)) {
	for _, scheme := range []string{"mem", "amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			ctx := within(t)
			conn, err := polymq.Open(ctx, testbroker.URL(t, scheme), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := conn.Close(context.WithoutCancel(ctx)); err != nil {
					t.Error(err)
				}
			}()
			f(t, ctx, conn)
		})
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func publish(t *testing.T, conn *polymq.Conn, exchange string, msgs ...*polymq.Message) {
	t.Helper()
	pub, err := conn.Publisher(t.Context(), exchange, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := pub.Publish(t.Context(), msgs...); err != nil {
		t.Fatal(err)
	}
}

// take receives and acknowledges n messages, and returns their bodies.
func take(t *testing.T, ctx context.Context, conn *polymq.Conn, queue string, n int) []string {
	t.Helper()
	sub, err := conn.Subscriber(ctx, queue, nil)
	if err != nil {
		t.Fatal(err)
	}
	var bodies []string
	for range n {
		d, err := sub.Receive(ctx)
		if err != nil {
			t.Fatalf("after %q: %v", bodies, err)
		}
		bodies = append(bodies, string(d.Body))
		if err := d.Ack(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := sub.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return bodies
}

// fresh is a URL for code that opens its own connections.
func fresh(t *testing.T, f func(t *testing.T, ctx context.Context, url string), schemes ...string) {
	for _, scheme := range schemes {
		t.Run(scheme, func(t *testing.T) { f(t, within(t), testbroker.URL(t, scheme)) })
	}
}

var (
	goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")
	link    = regexp.MustCompile(`\]\(([^)#:]+)`)
	// Where code stands that is not in the page's own test.
	elsewhere = map[string][]string{
		"configuration":    {"../../config/example_test.go"},
		"observability":    {"../../otelpolymq/example_test.go"},
		"writing-a-driver": {"../../examples/driver/sealed/open.go", "../../examples/driver/sealed/conn.go", "../../examples/driver/sealed/conformance_test.go"},
		"from-watermill":   {"before/watermill_test.go"},
		"from-go-cdk":      {"before/cdk_test.go"},
	}
)

// TestPages: each page's code is code that a test runs, and its links lead
// somewhere.
func TestPages(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	index, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, "../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(page, ".md")
		if page != "../README.md" && !strings.Contains(string(index), "](guides/"+page+")") {
			t.Errorf("docs/README.md does not lead to %s", page)
		}
		for _, l := range link.FindAllStringSubmatch(goBlock.ReplaceAllString(string(text), ""), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), l[1])); err != nil {
				t.Errorf("%s leads to %s: %v", page, l[1], err)
			}
		}
		var code strings.Builder
		for _, file := range append(elsewhere[name], strings.ReplaceAll(name, "-", "_")+"_test.go") {
			if b, err := os.ReadFile(file); err == nil {
				code.WriteString(level(string(b)))
			}
		}
		blocks := goBlock.FindAllStringSubmatch(string(text), -1)
		if len(blocks) == 0 && page != "../README.md" {
			t.Errorf("%s shows no code", page)
		}
		for _, b := range blocks {
			if !strings.Contains(code.String(), level(b[1])) {
				t.Errorf("%s shows what no test runs:\n%s", page, b[1])
			}
		}
	}
}

// level is code without its indentation, which a page need not keep.
func level(code string) string {
	var b strings.Builder
	for l := range strings.Lines(code) {
		b.WriteString(strings.TrimLeft(l, "\t"))
	}
	return b.String()
}
