package nats

import (
	"context"
	"crypto/rand"
	"strconv"

	natsgo "github.com/nats-io/nats.go"
)

// publishBatch stores messages in one atomic step, provided that the
// conditions in them hold, and returns the sequence of the last. The client
// library has no such call; a batch is three headers, an empty answer to its
// first message and an ordinary one to its last.
func (s *store) publishBatch(ctx context.Context, batch []*natsgo.Msg) (seq uint64, err error) {
	if len(batch) == 1 {
		return s.publishOne(ctx, batch[0])
	}
	id := rand.Text()
	for i, m := range batch {
		m.Header["Nats-Batch-Id"] = []string{id}
		m.Header["Nats-Batch-Sequence"] = []string{strconv.Itoa(i + 1)}
	}
	last := len(batch) - 1
	batch[last].Header["Nats-Batch-Commit"] = []string{"1"}
	s.asking(ctx, batch[0].Subject)
	first, err := s.nc.RequestMsgWithContext(ctx, batch[0])
	if err != nil {
		return 0, err
	}
	if len(first.Data) > 0 {
		if _, err := parseAck(first.Data); err != nil {
			return 0, err
		}
	}
	for _, m := range batch[1:last] {
		if err := s.nc.PublishMsg(m); err != nil {
			return 0, err
		}
	}
	return s.publishOne(ctx, batch[last])
}

func (s *store) publishOne(ctx context.Context, m *natsgo.Msg) (uint64, error) {
	s.asking(ctx, m.Subject)
	reply, err := s.nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return 0, err
	}
	return parseAck(reply.Data)
}
