package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/time/rate"

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

func ExampleDeadLetter() {
	publish := func(_ context.Context, msgs ...*polymq.Message) error { // of a publisher to the dead-letter exchange
		dead := &polymq.Delivery{Message: msgs[0]}
		fmt.Println(dead.Header[polymq.HeaderError], "/", dead.Deaths()[0].Queue, dead.Deaths()[0].Reason)
		return nil
	}
	handler := polymq.Chain(func(context.Context, *polymq.Delivery) error {
		return polymq.Permanent(errors.New("no such customer"))
	}, middleware.DeadLetter(publish, nil))

	fmt.Println(handler(context.Background(), &polymq.Delivery{Message: &polymq.Message{ID: "7"}, Queue: "billing"}))
	// Output:
	// no such customer / billing rejected
	// <nil>
}

func ExampleDeduplicate() {
	handler := polymq.Chain(func(_ context.Context, d *polymq.Delivery) error {
		fmt.Println("billed", d.ID)
		return nil
	}, middleware.Deduplicate(middleware.NewMemoryDedup(0), nil))

	for range 2 { // the message was published twice
		fmt.Println(handler(context.Background(), &polymq.Delivery{Message: &polymq.Message{ID: "7"}, Queue: "billing"}))
	}
	// Output:
	// billed 7
	// <nil>
	// <nil>
}

func ExampleThrottle() {
	limit := rate.NewLimiter(rate.Every(time.Hour), 2) // two at once, one more each hour
	handler := polymq.Chain(func(context.Context, *polymq.Delivery) error { return nil }, middleware.Throttle(limit))

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for range 3 {
		err := handler(ctx, &polymq.Delivery{Message: &polymq.Message{}})
		_, again := polymq.RetryDelay(err)
		fmt.Println(err == nil, again)
	}
	// Output:
	// true false
	// true false
	// false true
}

func ExampleThrottlePublish() {
	publish := middleware.ThrottlePublish(rate.NewLimiter(rate.Every(time.Hour), 2))(func(_ context.Context, msgs ...*polymq.Message) error {
		fmt.Println("sent", len(msgs))
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	fmt.Println(publish(ctx, &polymq.Message{}, &polymq.Message{}))
	fmt.Println(publish(ctx, &polymq.Message{}) != nil)
	// Output:
	// sent 2
	// <nil>
	// true
}

func ExampleCorrelate() {
	publish := middleware.CorrelatePublish()(func(_ context.Context, msgs ...*polymq.Message) error {
		fmt.Println(msgs[0].Key, "belongs to", msgs[0].CorrelationID)
		return nil
	})
	handler := polymq.Chain(func(ctx context.Context, d *polymq.Delivery) error {
		return publish(ctx, &polymq.Message{Key: "invoice.made"})
	}, middleware.Correlate())

	if err := handler(context.Background(), &polymq.Delivery{Message: &polymq.Message{CorrelationID: "order 7"}}); err != nil {
		fmt.Println(err)
	}
	// Output: invoice.made belongs to order 7
}

func ExampleCompress() {
	publish := middleware.Compress(middleware.Gzip, nil)(func(ctx context.Context, msgs ...*polymq.Message) error {
		fmt.Println(msgs[0].ContentEncoding, len(msgs[0].Body) < 100)
		handler := polymq.Chain(func(_ context.Context, d *polymq.Delivery) error {
			fmt.Println(len(d.Body), d.ContentEncoding == "")
			return nil
		}, middleware.Decompress(nil))
		return handler(ctx, &polymq.Delivery{Message: msgs[0]}) // on the other side
	})
	if err := publish(context.Background(), &polymq.Message{Body: []byte(strings.Repeat("sweep ", 1000))}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// gzip true
	// 6000 true
}
