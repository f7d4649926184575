package amqp

import (
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// TestUnreadable: a message of another program whose headers amqp091 does not read
// comes without those, and holds up nothing.
func TestUnreadable(t *testing.T) {
	for name, header := range map[string]any{
		"too deep": nested(40, "core"), "deep tables": amqp091.Table{"t": amqp091.Table{"list": nested(31, "core")}}, "too many": make([]any, 9000),
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t)
			check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
			s := subscribe(t, c, "q", 1)
			check(t, c.do(ctxOf(t), func(ch *channel) error {
				for _, m := range []amqp091.Publishing{
					{MessageId: "bad", ContentType: "text/plain", CorrelationId: "c", Body: []byte("poison"), Headers: amqp091.Table{
						"bad": header, "deep enough": nested(32, "core"), "plain": "kept", "table": amqp091.Table{"n": int32(7)}, "many": make([]any, 8192)}},
					{MessageId: "good", Body: []byte("next")},
				} {
					if err := ch.Publish("", "q", true, false, m); err != nil {
						return err
					}
				}
				return nil
			}))
			d := receive(t, s)
			h := d.Message.Header
			if d.Message.ID != "bad" || string(d.Message.Body) != "poison" || d.Message.CorrelationID != "c" || d.Message.ContentType != "text/plain" ||
				h["plain"] != "kept" || h["deep enough"] == nil || h["many"] == nil || h["bad"] != nil || h[headerUnread] != "bad" {
				t.Errorf("the message that cannot be read came as %q, %d headers, unread %v", d.Message.ID, len(h), h[headerUnread])
			}
			settle(t, s, d, driver.Ack)
			d = receive(t, s)
			if d.Message.ID != "good" || d.Message.Header != nil {
				t.Errorf("the next came as %+v", d.Message)
			}
			settle(t, s, d, driver.Ack)
		})
	}
}
