package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/middleware"
)

// The first middleware in the list is the outermost.
func Example_order() {
	mark := func(name string) polymq.Middleware {
		return func(next polymq.Handler) polymq.Handler {
			return func(ctx context.Context, d *polymq.Delivery) error {
				fmt.Println("into", name)
				err := next(ctx, d)
				fmt.Println("out of", name, "with", err)
				return err
			}
		}
	}
	handler := polymq.Chain(func(context.Context, *polymq.Delivery) error {
		fmt.Println("handler")
		panic("out of paper")
	}, mark("log"), middleware.Recover(), mark("retry"))

	err := handler(context.Background(), &polymq.Delivery{Message: &polymq.Message{}})
	fmt.Println("nack because of", err)
	// Output:
	// into log
	// into retry
	// handler
	// out of log with panic: out of paper
	// nack because of panic: out of paper
}

func ExampleRetry() {
	calls := 0
	handler := polymq.Chain(func(context.Context, *polymq.Delivery) error {
		calls++
		if calls < 3 {
			return errors.New("the printer is busy")
		}
		return nil
	}, middleware.Retry(5, polymq.Exponential(time.Millisecond, time.Second)))

	err := handler(context.Background(), &polymq.Delivery{Message: &polymq.Message{}})
	fmt.Println(calls, "calls,", err)
	// Output: 3 calls, <nil>
}

func ExampleRecover() {
	handler := polymq.Chain(func(_ context.Context, d *polymq.Delivery) error {
		fields := strings.Fields(string(d.Body))
		fmt.Println("name:", fields[0], "price:", fields[1])
		return nil
	}, middleware.Recover())

	fmt.Println(handler(context.Background(), &polymq.Delivery{Message: &polymq.Message{Body: []byte("broom")}}))
	// Output: panic: runtime error: index out of range [1] with length 1
}

func ExampleTimeout() {
	handler := polymq.Chain(func(ctx context.Context, d *polymq.Delivery) error {
		<-ctx.Done() // as a call to a slow service would
		return ctx.Err()
	}, middleware.Timeout(10*time.Millisecond))

	err := handler(context.Background(), &polymq.Delivery{Message: &polymq.Message{}})
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output: true
}

func ExampleLog() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "took" {
				return slog.Attr{} // differs from run to run
			}
			return a
		},
	}))
	handler := polymq.Chain(func(context.Context, *polymq.Delivery) error {
		return polymq.Permanent(errors.New("no such customer"))
	}, middleware.Log(logger, slog.LevelInfo))

	_ = handler(context.Background(), &polymq.Delivery{Message: &polymq.Message{ID: "7", Key: "order.paid"}, Exchange: "orders", Queue: "billing", Attempt: 1})
	// Output: level=ERROR msg=delivery queue=billing exchange=orders key=order.paid id=7 attempt=1 outcome=reject error="no such customer"
}
