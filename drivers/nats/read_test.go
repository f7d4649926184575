package nats

import (
	"errors"
	"testing"

	natsgo "github.com/nats-io/nats.go"

	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// A message that the stream's leader has not stored yet is not one that somebody
// has deleted: of several replicas the leader may be the last to have it.
func TestFetchOfWhatIsToCome(t *testing.T) {
	s := openRaw(t, testbroker.URL(t, "nats"))
	q := &emulate.Queue{Queue: routing.Queue{Name: "q"}, Incarnation: "1"}
	if err := s.CreateQueue(within(t), q); err != nil {
		t.Fatal(err)
	}
	h := s.newHandle(q)
	for range 2 {
		if _, err := s.js.Publish(within(t), h.subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.deleteMessages(within(t), h, []uint64{2}); err != nil {
		t.Fatal(err)
	}
	msgs, err := s.fetchOnce(within(t), h, []uint64{1, 2})
	if err != nil || msgs[0] == nil || msgs[1] != nil {
		t.Fatalf("of a message and one that was deleted: %v, %v", msgs, err)
	}
	if msgs, err := s.fetchOnce(within(t), h, []uint64{1, 3}); !errors.Is(err, natsgo.ErrTimeout) {
		t.Fatalf("of a message and one to come: %v, %v", msgs, err)
	}
}
