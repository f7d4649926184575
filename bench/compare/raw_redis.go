package main

import (
	"context"
	"errors"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// rawRedis is go-redis as most people write it: XADD of a field with the body,
// XREADGROUP, XACK and XDEL. It keeps no duplicates out.
type rawRedis struct {
	c      *goredis.Client
	stream string
}

const rawGroup = "g"

func newRawRedis(ctx context.Context, url string) (contender, error) {
	o, err := goredis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	o.PoolSize = 64
	r := &rawRedis{c: goredis.NewClient(o), stream: "bench:raw"}
	r.c.Del(ctx, r.stream)
	return r, r.c.XGroupCreateMkStream(ctx, r.stream, rawGroup, "0").Err()
}

func (r *rawRedis) add(ctx context.Context, p goredis.Cmdable, body []byte) *goredis.StringCmd {
	return p.XAdd(ctx, &goredis.XAddArgs{Stream: r.stream, Values: []any{"id", nextID(), "body", body}})
}

func (r *rawRedis) publish(ctx context.Context, op operation, n int, body []byte) error {
	switch op {
	case publishOne:
		for range n {
			if err := r.add(ctx, r.c, body).Err(); err != nil {
				return err
			}
		}
	case publishPipelined:
		return eachOf(2, n, func(n int) error { // two pipelines of half the window
			for n > 0 {
				k := min(n, window/2)
				_, err := r.c.Pipelined(ctx, func(p goredis.Pipeliner) error {
					for range k {
						r.add(ctx, p, body)
					}
					return nil
				})
				if err != nil {
					return err
				}
				n -= k
			}
			return nil
		})
	case publishCallers:
		return eachOf(callers, n, func(n int) error { return r.publish(ctx, publishOne, n, body) })
	}
	return nil
}

func (r *rawRedis) consume(ctx context.Context, n int) error {
	var ids []string
	for n > 0 {
		res, err := r.c.XReadGroup(ctx, &goredis.XReadGroupArgs{
			Group: rawGroup, Consumer: "c", Streams: []string{r.stream, ">"}, Count: prefetch, Block: time.Second}).Result()
		if err != nil {
			return err
		}
		ids = ids[:0]
		for _, m := range res[0].Messages {
			if len(m.Values) == 0 {
				return errors.New("an empty entry")
			}
			ids = append(ids, m.ID)
		}
		_, err = r.c.Pipelined(ctx, func(p goredis.Pipeliner) error {
			p.XAck(ctx, r.stream, rawGroup, ids...)
			p.XDel(ctx, r.stream, ids...)
			return nil
		})
		if err != nil {
			return err
		}
		n -= len(ids)
	}
	return nil
}

func (r *rawRedis) purge(ctx context.Context) error {
	if err := r.c.Del(ctx, r.stream).Err(); err != nil {
		return err
	}
	return r.c.XGroupCreateMkStream(ctx, r.stream, rawGroup, "0").Err()
}

func (r *rawRedis) close() { r.c.Close() }

// eachOf splits n over k goroutines.
func eachOf(k, n int, f func(n int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, k)
	for i := range k {
		share := n / k
		if i < n%k {
			share++
		}
		wg.Go(func() { errs[i] = f(share) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
