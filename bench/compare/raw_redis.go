package main

import (
	"context"
	"errors"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// redisStreams is a stream with a group for each queue.
type redisStreams struct {
	closers
	c       *goredis.Client
	streams []string
}

const redisGroup = "g"

func (r *redisStreams) open(ctx context.Context, s setup, who string) error {
	o, err := goredis.ParseURL(s.url)
	if err != nil {
		return err
	}
	o.PoolSize = callers
	r.c = goredis.NewClient(o)
	r.streams = s.names(who)
	r.add(func() { r.c.Close() })
	r.add(func() { r.c.Del(context.Background(), r.streams...) })
	return r.purge(ctx)
}

func (r *redisStreams) purge(ctx context.Context) error {
	for _, st := range r.streams {
		if err := r.c.Del(ctx, st).Err(); err != nil {
			return err
		}
		if err := r.c.XGroupCreateMkStream(ctx, st, redisGroup, "0").Err(); err != nil {
			return err
		}
	}
	return nil
}

// rawRedis is go-redis as most people write it: XADD, XREADGROUP, XACK and XDEL,
// a pipeline for what is pipelined. That XADD keeps no duplicates out, and makes
// anew a stream that was deleted: with once a script does neither, which is the
// contract that polymq has.
type rawRedis struct {
	redisStreams
	once bool
}

// A retry with the same ID within the window leaves no second copy.
var addOnce = goredis.NewScript(`
if redis.call('SET', KEYS[2], '', 'NX', 'PX', ARGV[1]) then
  return redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', unpack(ARGV, 2))
end
return ''`)

func openRawRedis(ctx context.Context, s setup) (contender, error) {
	r := &rawRedis{once: true}
	if err := r.open(ctx, s, "raw"); err != nil {
		return nil, err
	}
	return r, addOnce.Load(ctx, r.c).Err()
}

func openLooseRedis(ctx context.Context, s setup) (contender, error) {
	r := &rawRedis{}
	return r, r.open(ctx, s, "loose")
}

// put puts one message's commands into p.
func (r *rawRedis) put(ctx context.Context, p goredis.Cmdable, body []byte) (last goredis.Cmder) {
	id := nextID()
	for _, st := range r.streams {
		if r.once {
			last = p.EvalSha(ctx, addOnce.Hash(), []string{st, st + ":" + id}, dedupWindow.Milliseconds(), "id", id, "body", body)
		} else {
			last = p.XAdd(ctx, &goredis.XAddArgs{Stream: st, Values: []any{"id", id, "body", body}})
		}
	}
	return last
}

func (r *rawRedis) publish(ctx context.Context, l load, n int, body []byte) error {
	pipelined := func(n int) error {
		_, err := r.c.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for range n {
				r.put(ctx, p, body)
			}
			return nil
		})
		return err
	}
	return l.spread(n, func(n int) error {
		for range n {
			var err error
			if len(r.streams) == 1 {
				err = r.put(ctx, r.c, body).Err()
			} else {
				err = pipelined(1)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}, func(n int) error {
		return halves(l.window, n, pipelined)
	})
}

// halves sends n messages in batches of half the window, two at a time.
func halves(window, n int, send func(n int) error) error {
	return eachOf(2, n, func(n int) error {
		for n > 0 {
			k := min(n, window/2)
			if err := send(k); err != nil {
				return err
			}
			n -= k
		}
		return nil
	})
}

func (r *rawRedis) consume(ctx context.Context, each func([]byte) bool) (time.Time, error) {
	var ids []string
	for more := true; more; {
		res, err := r.c.XReadGroup(ctx, &goredis.XReadGroupArgs{
			Group: redisGroup, Consumer: "c", Streams: []string{r.streams[0], ">"}, Count: prefetch, Block: 5 * time.Second}).Result()
		if err != nil {
			return time.Time{}, err
		}
		ids = ids[:0]
		for _, m := range res[0].Messages {
			body, ok := m.Values["body"].(string)
			if !ok {
				return time.Time{}, errors.New("an entry without a body")
			}
			ids = append(ids, m.ID)
			more = each([]byte(body))
		}
		_, err = r.c.Pipelined(ctx, func(p goredis.Pipeliner) error {
			p.XAck(ctx, r.streams[0], redisGroup, ids...)
			p.XDel(ctx, r.streams[0], ids...)
			return nil
		})
		if err != nil {
			return time.Time{}, err
		}
	}
	return time.Now(), nil
}

func (r *rawRedis) purge(ctx context.Context) error {
	if r.once {
		if err := r.forget(ctx); err != nil {
			return err
		}
	}
	return r.redisStreams.purge(ctx)
}

// forget takes away the IDs, which would burden whoever is measured next.
func (r *rawRedis) forget(ctx context.Context) error {
	for cursor := uint64(0); ; {
		keys, next, err := r.c.Scan(ctx, cursor, r.streams[0][:len(r.streams[0])-1]+"*:*", 10000).Result()
		if err != nil {
			return err
		}
		if len(keys) > 0 {
			if err := r.c.Unlink(ctx, keys...).Err(); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}
