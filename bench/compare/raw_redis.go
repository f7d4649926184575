package main

import (
	"context"
	"errors"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// rawRedis is go-redis as most people write it: XADD of a field with the body,
// XREADGROUP, XACK and XDEL. It keeps no duplicates out, and makes a stream that
// is gone anew. With dedup it does neither, by a script, as polymq's contract
// wants it.
type rawRedis struct {
	c      *goredis.Client
	stream string
	dedup  bool
}

// A retry with the same ID within the window leaves no second copy.
var addOnce = goredis.NewScript(`
if redis.call('SET', KEYS[2], '', 'NX', 'PX', 20000) then
  return redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', unpack(ARGV))
end
return ''`)

const rawGroup = "g"

func newRawRedis(ctx context.Context, url string, dedup bool) (contender, error) {
	o, err := goredis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	o.PoolSize = 64
	r := &rawRedis{c: goredis.NewClient(o), stream: "bench:raw", dedup: dedup}
	r.c.Del(ctx, r.stream)
	if err := addOnce.Load(ctx, r.c).Err(); err != nil {
		return nil, err
	}
	return r, r.c.XGroupCreateMkStream(ctx, r.stream, rawGroup, "0").Err()
}

func (r *rawRedis) add(ctx context.Context, p goredis.Cmdable, body []byte) goredis.Cmder {
	if r.dedup {
		id := nextID()
		return p.EvalSha(ctx, addOnce.Hash(), []string{r.stream, r.stream + ":" + id}, "id", id, "body", body)
	}
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
	if r.dedup {
		if err := r.forget(ctx); err != nil {
			return err
		}
	}
	return r.c.XGroupCreateMkStream(ctx, r.stream, rawGroup, "0").Err()
}

// forget takes away the IDs, which would burden whoever is measured next.
func (r *rawRedis) forget(ctx context.Context) error {
	for it := r.c.Scan(ctx, 0, r.stream+":*", 10000).Iterator(); ; {
		var keys []string
		for len(keys) < 10000 && it.Next(ctx) {
			keys = append(keys, it.Val())
		}
		if len(keys) == 0 {
			return it.Err()
		}
		if err := r.c.Unlink(ctx, keys...).Err(); err != nil {
			return err
		}
	}
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
