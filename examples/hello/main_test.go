package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/internal/testbroker"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

// The program does what the README says, on every backend.
func TestHello(t *testing.T) {
	for _, scheme := range []string{"mem", "amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			out := &line{done: cancel} // the program goes on until its ctx ends
			hello(ctx, testbroker.URL(t, scheme), out)
			if got := out.String(); got != "order.eu.paid: 17 EUR\n" {
				t.Errorf("printed %q", got)
			}
		})
	}
}

// line calls done when it was written to.
type line struct {
	strings.Builder
	done func()
}

func (l *line) Write(b []byte) (int, error) {
	defer l.done()
	return l.Builder.Write(b)
}

// The README shows the body of hello, as it is.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, ok := strings.Cut(string(readme), "```go\n")
	shown, _, closed := strings.Cut(shown, "```\n")
	if !ok || !closed {
		t.Fatal("the README shows no program")
	}
	var body strings.Builder
	for l := range strings.Lines(shown) {
		body.WriteString("\t" + l)
	}
	if !strings.Contains(string(program), body.String()) {
		t.Errorf("the README's program is not in main.go:\n%s", shown)
	}
}
