package zstd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/middleware"
	"github.com/polymq/polymq/middleware/zstd"
)

func TestEncoding(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, n := range []int{0, 1, 1000, 1 << 20} {
		body := bytes.Repeat([]byte("x"), n)
		packed, err := zstd.Encoding.Compress(body)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := zstd.Encoding.Decompress(packed, n); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes: %d came back, %v", n, len(got), err)
		}
		if got, err := zstd.Encoding.Decompress(packed, math.MaxInt); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes without a limit: %d came back, %v", n, len(got), err)
		}
		if n > 0 {
			if _, err := zstd.Encoding.Decompress(packed, n-1); !errors.Is(err, polymq.ErrTooLarge) {
				t.Errorf("%d bytes into %d: %v", n, n-1, err)
			}
			if _, err := zstd.Encoding.Decompress(packed[:len(packed)-1], n); err == nil {
				t.Errorf("%d bytes: a part was taken for all", n)
			}
		}
	}
	if _, err := zstd.Encoding.Decompress([]byte("plain text"), 100); err == nil {
		t.Error("plain text was decompressed")
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
}

func Example() {
	body := bytes.Repeat([]byte("sweep "), 1000)
	publish := middleware.Compress(zstd.Encoding, nil)(func(ctx context.Context, msgs ...*polymq.Message) error {
		fmt.Println(msgs[0].ContentEncoding, len(msgs[0].Body) < 100)
		handler := polymq.Chain(func(_ context.Context, d *polymq.Delivery) error {
			fmt.Println(len(d.Body), d.ContentEncoding == "")
			return nil
		}, middleware.Decompress(&middleware.DecompressOptions{Encodings: []middleware.Encoding{zstd.Encoding, middleware.Gzip}}))
		return handler(ctx, &polymq.Delivery{Message: msgs[0]})
	})
	if err := publish(context.Background(), &polymq.Message{Body: body}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// zstd true
	// 6000 true
}
