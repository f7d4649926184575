package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/middleware"
)

func TestLog(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want []string
	}{
		"ack":    {nil, []string{"level=DEBUG", "outcome=ack"}},
		"nack":   {io.EOF, []string{"level=ERROR", "outcome=nack", "error=EOF"}},
		"reject": {polymq.Permanent(io.EOF), []string{"level=ERROR", "outcome=reject"}},
		"panic":  {&middleware.PanicError{Value: "boom", Stack: []byte("trace")}, []string{"level=ERROR", "boom", "stack=trace"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			l := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
			calls := 0
			h := polymq.Chain(script(&calls, c.err), middleware.Log(l, slog.LevelDebug))
			if err := h(t.Context(), delivery()); !errors.Is(err, c.err) {
				t.Fatal(err)
			}
			line := out.String()
			for _, want := range append(c.want, "queue=billing", "exchange=orders", "key=order.paid", "id=id-1", "attempt=2", "took=") {
				if !strings.Contains(line, want) {
					t.Errorf("the line lacks %q: %s", want, line)
				}
			}
			if strings.Count(line, "\n") != 1 || strings.Contains(line, "secret") {
				t.Errorf("%s", line)
			}
		})
	}
}

func TestLogLetsPanicsPass(t *testing.T) {
	var out bytes.Buffer
	h := polymq.Chain(func(context.Context, *polymq.Delivery) error { panic("boom") }, middleware.Log(slog.New(slog.NewTextHandler(&out, nil)), slog.LevelInfo))
	defer func() {
		if v := recover(); v != "boom" {
			t.Errorf("recovered %v", v)
		}
		if !strings.Contains(out.String(), "outcome=panic") {
			t.Error(out.String())
		}
	}()
	_ = h(t.Context(), delivery())
}
