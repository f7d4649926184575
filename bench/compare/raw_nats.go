package main

import (
	"context"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// jetStreams is a stream and a consumer for each queue: a work queue, which
// deletes what is acknowledged, and refuses an ID that it has seen.
type jetStreams struct {
	closers
	nc        *natsgo.Conn
	js        jetstream.JetStream
	subjects  []string // also the streams' names
	streams   []jetstream.Stream
	consumers []jetstream.Consumer
}

const natsConsumer = "c"

func (j *jetStreams) open(ctx context.Context, s setup, who string) (err error) {
	defer func() {
		if err != nil {
			j.close()
		}
	}()
	if j.nc, err = natsgo.Connect(s.url); err != nil {
		return err
	}
	j.add(j.nc.Close)
	if j.js, err = jetstream.New(j.nc, jetstream.WithPublishAsyncMaxPending(maxWindow)); err != nil {
		return err
	}
	j.subjects = s.names(who)
	for _, name := range j.subjects {
		j.add(func() { _ = j.js.DeleteStream(context.Background(), name) })
		st, err := j.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name: name, Subjects: []string{name}, Retention: jetstream.WorkQueuePolicy,
			Storage: jetstream.FileStorage, Duplicates: dedupWindow})
		if err != nil {
			return err
		}
		c, err := st.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
			Durable: natsConsumer, AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 4096})
		if err != nil {
			return err
		}
		j.streams, j.consumers = append(j.streams, st), append(j.consumers, c)
	}
	return nil
}

func (j *jetStreams) purge(ctx context.Context) error {
	for _, st := range j.streams {
		if err := st.Purge(ctx); err != nil {
			return err
		}
	}
	return nil
}

// rawNATS is the jetstream package as most people write it.
type rawNATS struct{ jetStreams }

func openRawNATS(ctx context.Context, s setup) (contender, error) {
	r := &rawNATS{}
	return r, r.open(ctx, s, "raw")
}

func (r *rawNATS) publish(ctx context.Context, l load, n int, body []byte) error {
	send := func() ([]jetstream.PubAckFuture, error) {
		id := nextID()
		var futures []jetstream.PubAckFuture
		for _, subject := range r.subjects {
			f, err := r.js.PublishAsync(subject, body, jetstream.WithMsgID(id), jetstream.WithStallWait(10*time.Second))
			if err != nil {
				return nil, err
			}
			futures = append(futures, f)
		}
		return futures, nil
	}
	wait := func(futures []jetstream.PubAckFuture) error {
		for _, f := range futures {
			select {
			case <-f.Ok():
			case err := <-f.Err():
				return err
			}
		}
		return nil
	}
	return l.spread(n, func(n int) error {
		for range n {
			if len(r.subjects) == 1 {
				if _, err := r.js.Publish(ctx, r.subjects[0], body, jetstream.WithMsgID(nextID())); err != nil {
					return err
				}
				continue
			}
			futures, err := send()
			if err != nil {
				return err
			}
			if err := wait(futures); err != nil {
				return err
			}
		}
		return nil
	}, func(n int) error {
		pending := make([][]jetstream.PubAckFuture, l.window)
		for i := range n + l.window {
			if err := wait(pending[i%l.window]); err != nil {
				return err
			}
			if pending[i%l.window] = nil; i < n {
				futures, err := send()
				if err != nil {
					return err
				}
				pending[i%l.window] = futures
			}
		}
		return nil
	})
}

func (r *rawNATS) consume(ctx context.Context, each func([]byte) bool) (time.Time, error) {
	it, err := r.consumers[0].Messages(jetstream.PullMaxMessages(prefetch))
	if err != nil {
		return time.Time{}, err
	}
	defer it.Stop()
	for more := true; more; {
		m, err := it.Next()
		if err != nil {
			return time.Time{}, err
		}
		more = each(m.Data())
		if err := m.Ack(); err != nil {
			return time.Time{}, err
		}
	}
	err = r.nc.Flush()
	return time.Now(), err
}
