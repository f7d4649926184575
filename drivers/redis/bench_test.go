package redis

import (
	"context"
	"strings"
	"sync"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
)

// The raw client with the same contract minus deduplication, and the driver,
// in one run: compare within it only.

var payload = strings.Repeat("x", 256)

func BenchmarkPublishOne(b *testing.B) {
	url := testbroker.URL(b, "redis")
	b.Run("raw", func(b *testing.B) {
		c := raw(b, url)
		ctx := context.Background()
		b.ReportAllocs()
		for b.Loop() {
			if err := c.Process(ctx, goredis.NewStringCmd(ctx, "XADD", "polymq-bench-raw", "*", "key", "q", "body", payload)); err != nil {
				b.Fatal(err)
			}
		}
		c.Del(ctx, "polymq-bench-raw")
	})
	b.Run("driver", func(b *testing.B) {
		conn, _ := dial(b, url)
		declare(b, conn, "q")
		p, w := publisher(b, conn)
		m := &driver.Message{Key: "q", Body: []byte(payload)}
		pub := &driver.Publishing{Owner: w}
		batch := []*driver.Publishing{pub}
		ctx := context.Background()
		b.ReportAllocs()
		for b.Loop() {
			pub.Reset(m, "generated-id")
			p.Publish(ctx, batch, true)
			if err := (<-w.c).Err(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func publisher(b *testing.B, conn driver.Conn) (driver.Publisher, waiter) {
	p, err := conn.Publisher(ctxT(b), driver.PublisherConfig{})
	if err != nil {
		b.Fatal(err)
	}
	return p, waiter{make(chan *driver.Publishing, 1<<12)}
}

func BenchmarkPublishBatch(b *testing.B) {
	const size = 512
	url := testbroker.URL(b, "redis")
	b.Run("raw", func(b *testing.B) {
		c := raw(b, url)
		ctx := context.Background()
		b.ReportAllocs()
		for i := 0; i < b.N; i += size {
			pipe := c.Pipeline()
			for range size {
				_ = pipe.Process(ctx, goredis.NewStringCmd(ctx, "XADD", "polymq-bench-raw", "*", "key", "q", "body", payload))
			}
			if _, err := pipe.Exec(ctx); err != nil {
				b.Fatal(err)
			}
		}
		c.Del(ctx, "polymq-bench-raw")
	})
	b.Run("driver", func(b *testing.B) {
		conn, _ := dial(b, url)
		declare(b, conn, "q")
		p, w := publisher(b, conn)
		var batch []*driver.Publishing
		for range size {
			batch = append(batch, &driver.Publishing{Owner: w})
		}
		m := &driver.Message{Key: "q", Body: []byte(payload)}
		ctx := context.Background()
		b.ReportAllocs()
		b.ResetTimer()
		for i := 0; i < b.N; i += size {
			for _, pub := range batch {
				pub.Reset(m, "generated-id")
			}
			p.Publish(ctx, batch, true)
			for range size {
				<-w.c
			}
		}
	})
}

func BenchmarkPublish64(b *testing.B) {
	url := testbroker.URL(b, "redis")
	b.Run("raw", func(b *testing.B) {
		c := raw(b, url)
		ctx := context.Background()
		b.ReportAllocs()
		callers(b, func() {
			_ = c.Process(ctx, goredis.NewStringCmd(ctx, "XADD", "polymq-bench-raw", "*", "key", "q", "body", payload))
		})
		c.Del(ctx, "polymq-bench-raw")
	})
	b.Run("driver", func(b *testing.B) {
		conn, _ := dial(b, url)
		declare(b, conn, "q")
		m := &driver.Message{Key: "q", Body: []byte(payload)}
		ctx := context.Background()
		pool := sync.Pool{New: func() any {
			p, w := publisher(b, conn)
			return &struct {
				driver.Publisher
				waiter
				driver.Publishing
			}{Publisher: p, waiter: w}
		}}
		b.ReportAllocs()
		callers(b, func() {
			x := pool.Get().(*struct {
				driver.Publisher
				waiter
				driver.Publishing
			})
			x.Owner = x.waiter
			x.Reset(m, "generated-id")
			x.Publish(ctx, []*driver.Publishing{&x.Publishing}, true)
			<-x.c
			pool.Put(x)
		})
	})
}

func callers(b *testing.B, f func()) {
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range b.N / 64 {
				f()
			}
		})
	}
	wg.Wait()
}

func BenchmarkConsume(b *testing.B) {
	url := testbroker.URL(b, "redis")
	b.Run("raw", func(b *testing.B) {
		c := raw(b, url)
		ctx := context.Background()
		fill(b, b.N, func(n int) {
			pipe := c.Pipeline()
			for range n {
				_ = pipe.Process(ctx, goredis.NewStringCmd(ctx, "XADD", "polymq-bench-raw", "*", "key", "q", "body", payload))
			}
			_, _ = pipe.Exec(ctx)
		})
		c.XGroupCreate(ctx, "polymq-bench-raw", "g", "0")
		b.ReportAllocs()
		b.ResetTimer()
		for n := 0; n < b.N; {
			got, err := c.XReadGroup(ctx, &goredis.XReadGroupArgs{Group: "g", Consumer: "c", Streams: []string{"polymq-bench-raw", ">"}, Count: 256}).Result()
			if err != nil {
				b.Fatal(err)
			}
			var ids []string
			for _, m := range got[0].Messages {
				ids = append(ids, m.ID)
			}
			n += len(ids)
			pipe := c.Pipeline()
			pipe.XAck(ctx, "polymq-bench-raw", "g", ids...)
			pipe.XDel(ctx, "polymq-bench-raw", ids...)
			_, _ = pipe.Exec(ctx)
		}
		c.Del(ctx, "polymq-bench-raw")
	})
	b.Run("driver", func(b *testing.B) {
		conn, _ := dial(b, url)
		declare(b, conn, "q")
		fill(b, b.N, func(n int) {
			var ms []*driver.Message
			for range n {
				ms = append(ms, text(payload))
			}
			if err := publish(b, conn, "q", ms...); err != nil {
				b.Fatal(err)
			}
		})
		b.ReportAllocs()
		b.ResetTimer()
		sub := subscribe(b, conn, "q", 512)
		buf := make([]*driver.Delivery, 256)
		ctx := context.Background()
		for n := 0; n < b.N; {
			k, err := sub.Receive(ctx, buf)
			if err != nil {
				b.Fatal(err)
			}
			for _, d := range buf[:k] {
				_ = sub.Settle(ctx, d, driver.Ack, 0)
			}
			n += k
		}
		b.StopTimer()
		info(b, conn, "q", driver.QueueInfo{Consumers: 1})
		if _, err := conn.Purge(ctx, "q"); err != nil {
			b.Fatal(err)
		}
	})
}

func fill(b *testing.B, n int, add func(n int)) {
	b.Helper()
	for ; n > 0; n -= 512 {
		add(min(n, 512))
	}
}
