package acceptance_test

import (
	"context"
	"errors"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// TestPeers are the defects of other libraries that no other test would notice
// here; peers_table_test.go tells of each.
func TestPeers(t *testing.T) {
	brokers := all[1:]
	for _, c := range []struct {
		name    string
		schemes []string
		test    func(t *testing.T, scheme string)
	}{
		{"01_components-contrib_4335", brokers, subscribeWhileAway},
		{"03_amqp091-go_32", brokers, closeAmidEverything},
		{"04_go-rabbitmq_119", brokers, outcomesStayTheirOwn},
		{"06_components-contrib_3219", []string{"redis"}, groupLostWithTheData},
		{"07_components-contrib_4599", []string{"nats", "redis"}, bufferedIsHeld},
		{"12_go-redis_2276", []string{"redis"}, poolOfOne},
		{"26_nats.go_1972", []string{"nats"}, consumerDeleted},
		{"3b_dapr-redis_no-pause", brokers, outageIsQuiet},
		{"3b_watermill-nats_two-values", []string{"nats"}, twoValues},
		{"3b_watermill-redisstream_nack", brokers, nackedHoldsUpNobody},
		{"3b_go-rabbitmq_spin", brokers, drainingTakesNothing},
	} {
		for _, scheme := range c.schemes {
			t.Run(c.name+"/"+scheme, func(t *testing.T) {
				t.Parallel()
				c.test(t, scheme)
			})
		}
	}
}

var plain = routing.Topology{Queues: []routing.Queue{{Name: "q"}}}

func send(t *testing.T, ctx context.Context, pub *polymq.Publisher, key string, bodies ...string) {
	t.Helper()
	var msgs []*polymq.Message
	for _, b := range bodies {
		msgs = append(msgs, &polymq.Message{Key: key, Body: []byte(b)})
	}
	if err := pub.Publish(ctx, msgs...); err != nil {
		t.Fatal(err)
	}
}

// take receives a message and acknowledges it.
func take(t *testing.T, ctx context.Context, sub *polymq.Subscriber) string {
	t.Helper()
	for {
		d, err := sub.Receive(ctx)
		if err != nil {
			t.Fatalf("Receive: %v", err)
		}
		if err := d.Ack(ctx); errors.Is(err, polymq.ErrLost) {
			continue // it comes again
		} else if err != nil {
			t.Fatalf("Ack: %v", err)
		}
		return string(d.Body)
	}
}

// leased gives a URL a short lease where the backend has one.
func leased(scheme, url string) string {
	if scheme == "amqp" {
		return url
	}
	return url + "&lease=1s"
}
