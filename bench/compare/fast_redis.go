package main

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// fastRedis keeps duplicates out by the number of a batch rather than by each
// message's ID, so that one call of a script stores many messages; callers that
// come together make up a batch, which the first of them sends. Two batches are
// under way at once. Acknowledgements ride with the next read.
type fastRedis struct {
	redisStreams
	lanes [2]fastLane
	free  chan *fastLane // of those who pipeline
	mu    sync.Mutex
	queue []*fastCall
	idle  []*fastLane
}

// fastLane has one batch under way.
type fastLane struct {
	name string
	seq  int
}

// fastCall is a caller that waits: nil with the outcome, or a lane to lead.
type fastCall struct {
	body []byte
	done chan error
	lead chan *fastLane
}

var addBatch = goredis.NewScript(`
local lanes = KEYS[1] .. ':lanes'
if tonumber(redis.call('HGET', lanes, ARGV[1]) or '0') >= tonumber(ARGV[2]) then return 1 end
for i = 3, #ARGV, 2 do
  if not redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', 'id', ARGV[i], 'body', ARGV[i + 1]) then return 0 end
end
redis.call('HSET', lanes, ARGV[1], ARGV[2])
return 1`)

func openFastRedis(ctx context.Context, s setup) (contender, error) {
	f := &fastRedis{free: make(chan *fastLane, 2)}
	for i := range f.lanes {
		f.lanes[i].name = "lane" + strconv.Itoa(i)
		f.idle = append(f.idle, &f.lanes[i])
		f.free <- &f.lanes[i]
	}
	if err := f.open(ctx, s, "fast"); err != nil {
		return nil, err
	}
	for _, st := range f.streams {
		f.add(func() { f.c.Del(context.Background(), st+":lanes") })
	}
	return f, addBatch.Load(ctx, f.c).Err()
}

// store sends one batch to every queue.
func (f *fastRedis) store(ctx context.Context, lane *fastLane, n int, body func(i int) []byte) error {
	lane.seq++
	tail := make([]any, 0, 2*n)
	for i := range n {
		tail = append(tail, nextID(), body(i))
	}
	cmds := make([]*goredis.Cmd, len(f.streams))
	for i, st := range f.streams {
		args := append(make([]any, 0, 6+len(tail)), "EVALSHA", addBatch.Hash(), 1, st, lane.name, lane.seq)
		cmds[i] = goredis.NewCmd(ctx, append(args, tail...)...)
	}
	if len(cmds) == 1 {
		_ = f.c.Process(ctx, cmds[0])
	} else {
		p := f.c.Pipeline()
		for _, c := range cmds {
			_ = p.Process(ctx, c)
		}
		_, _ = p.Exec(ctx)
	}
	for _, c := range cmds {
		if stored, err := c.Int(); err != nil || stored != 1 {
			return errors.Join(err, errors.New("not stored"))
		}
	}
	return nil
}

// publishOne joins the batch that is being gathered, or leads one.
func (f *fastRedis) publishOne(ctx context.Context, call *fastCall) error {
	f.mu.Lock()
	if n := len(f.idle); n > 0 {
		lane := f.idle[n-1]
		f.idle = f.idle[:n-1]
		f.mu.Unlock()
		return f.lead(ctx, lane, call)
	}
	f.queue = append(f.queue, call)
	f.mu.Unlock()
	select {
	case err := <-call.done:
		return err
	case lane := <-call.lead:
		return f.lead(ctx, lane, call)
	}
}

// lead sends what waits, with the leader's own first, and hands the lane on.
func (f *fastRedis) lead(ctx context.Context, lane *fastLane, own *fastCall) error {
	f.mu.Lock()
	batch := append([]*fastCall{own}, f.queue...)
	f.queue = f.queue[:0]
	f.mu.Unlock()
	err := f.store(ctx, lane, len(batch), func(i int) []byte { return batch[i].body })
	f.mu.Lock()
	if len(f.queue) > 0 {
		next := f.queue[0]
		f.queue = append(f.queue[:0], f.queue[1:]...)
		next.lead <- lane
	} else {
		f.idle = append(f.idle, lane)
	}
	f.mu.Unlock()
	for _, call := range batch[1:] {
		call.done <- err
	}
	return err
}

func (f *fastRedis) publish(ctx context.Context, l load, n int, body []byte) error {
	return l.spread(n, func(n int) error {
		call := &fastCall{body: body, done: make(chan error, 1), lead: make(chan *fastLane, 1)}
		for range n {
			if err := f.publishOne(ctx, call); err != nil {
				return err
			}
		}
		return nil
	}, func(n int) error {
		return halves(l.window, n, func(n int) error {
			lane := <-f.free
			defer func() { f.free <- lane }()
			return f.store(ctx, lane, n, func(int) []byte { return body })
		})
	})
}

// consume reads one batch ahead: each request acknowledges what the one before
// the last brought.
func (f *fastRedis) consume(ctx context.Context, each func([]byte) bool) (time.Time, error) {
	type answer struct {
		read *goredis.XStreamSliceCmd
		err  error
	}
	requests, answers := make(chan []string, 1), make(chan answer, 1)
	defer close(requests)
	go func() {
		defer close(answers)
		for ids := range requests {
			var a answer
			p := f.c.Pipeline()
			if len(ids) > 0 {
				p.XAck(ctx, f.streams[0], redisGroup, ids...)
				p.XDel(ctx, f.streams[0], ids...)
			}
			a.read = p.XReadGroup(ctx, &goredis.XReadGroupArgs{
				Group: redisGroup, Consumer: "c", Streams: []string{f.streams[0], ">"}, Count: prefetch / 2, Block: 50 * time.Millisecond})
			if _, a.err = p.Exec(ctx); errors.Is(a.err, goredis.Nil) {
				a.err = nil
			}
			answers <- a
		}
	}()
	requests <- nil
	var ids []string
	for more := true; more; {
		a := <-answers
		if a.err != nil {
			return time.Time{}, a.err
		}
		requests <- ids
		ids = nil
		for _, st := range a.read.Val() {
			for _, m := range st.Messages {
				ids = append(ids, m.ID)
				body, _ := m.Values["body"].(string)
				more = each([]byte(body))
			}
		}
	}
	p := f.c.Pipeline()
	p.XAck(ctx, f.streams[0], redisGroup, ids...)
	p.XDel(ctx, f.streams[0], ids...)
	_, err := p.Exec(ctx)
	settled := time.Now()
	last := <-answers
	return settled, errors.Join(err, last.err)
}
