package main

import (
	"context"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// rawNATS is the jetstream package as most people write it, with message IDs
// for deduplication, as polymq has them.
type rawNATS struct {
	nc       *natsgo.Conn
	js       jetstream.JetStream
	stream   jetstream.Stream
	consumer jetstream.Consumer
}

const rawSubject = "bench.raw"

func newRawNATS(ctx context.Context, url string) (contender, error) {
	nc, err := natsgo.Connect(url)
	if err != nil {
		return nil, err
	}
	r := &rawNATS{nc: nc}
	if r.js, err = jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(window)); err != nil {
		return nil, err
	}
	r.stream, err = r.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: "BENCH_RAW", Subjects: []string{rawSubject}, Retention: jetstream.WorkQueuePolicy,
		Storage: jetstream.FileStorage, Duplicates: 20 * time.Second})
	if err != nil {
		return nil, err
	}
	r.consumer, err = r.stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 4096})
	return r, err
}

func (r *rawNATS) publish(ctx context.Context, op operation, n int, body []byte) error {
	switch op {
	case publishOne:
		for range n {
			if _, err := r.js.Publish(ctx, rawSubject, body, jetstream.WithMsgID(nextID())); err != nil {
				return err
			}
		}
	case publishPipelined:
		futures := make([]jetstream.PubAckFuture, 0, n)
		for range n {
			f, err := r.js.PublishAsync(rawSubject, body, jetstream.WithMsgID(nextID()), jetstream.WithStallWait(10*time.Second))
			if err != nil {
				return err
			}
			futures = append(futures, f)
		}
		for _, f := range futures {
			select {
			case <-f.Ok():
			case err := <-f.Err():
				return err
			}
		}
	case publishCallers:
		return eachOf(callers, n, func(n int) error { return r.publish(ctx, publishOne, n, body) })
	}
	return nil
}

func (r *rawNATS) consume(ctx context.Context, n int) error {
	it, err := r.consumer.Messages(jetstream.PullMaxMessages(prefetch))
	if err != nil {
		return err
	}
	defer it.Stop()
	for range n {
		m, err := it.Next()
		if err != nil {
			return err
		}
		if err := m.Ack(); err != nil {
			return err
		}
	}
	return r.nc.FlushWithContext(ctx)
}

func (r *rawNATS) purge(ctx context.Context) error { return r.stream.Purge(ctx) }

func (r *rawNATS) close() {
	_ = r.js.DeleteStream(context.Background(), "BENCH_RAW")
	r.nc.Close()
}
