package amqp

import (
	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
)

// delivery is what Delivery.Tag leads back to.
type delivery struct {
	driver.Delivery
	life *life
	tag  uint64
	// sent is the message as it was delivered: a delayed copy must not carry
	// what a handler has made of it.
	sent driver.Message
	// count is what the broker has counted, without attempts before a delay;
	// carried is what of that was in another queue.
	count, carried int
	// handed says that Receive returned it; guarded by the subscriber's mutex.
	handed bool
}

// deliver is d as the application sees it.
func (s *subscriber) deliver(l *life, d *amqp091.Delivery) *delivery {
	in := &delivery{life: l, tag: d.DeliveryTag}
	in.Tag = in
	in.Queue = s.queue
	in.Exchange = d.Exchange
	in.Redelivered = d.Redelivered
	message(&in.Message, d)
	if s.raw {
		if in.Message.Header == nil {
			in.Message.Header = driver.Header{}
		}
		return in
	}
	in.counted(l.kind.kind, s.c.version)
	in.restore()
	if len(in.Message.Header) == 0 {
		in.Message.Header = nil
	}
	in.sent = in.Message
	return in
}

// counted reads the broker's count of earlier deliveries, and takes it out of
// the header. A header of that name is the broker's only on what it delivers
// again, and only from a queue that counts, or from one that has it from the
// queue where the message died; else somebody has published it.
func (d *delivery) counted(kind string, v version) {
	h := d.Message.Header
	count, ok := h[headerDelivered].(int64)
	acquired, given := h[headerAcquired].(int64)
	counts := kind == typeQuorum || kind == ""
	if died := h[prefixLast+"reason"] != nil; !d.Redelivered || !counts && !died {
		ok, given = false, false
	}
	if ok {
		delete(h, headerDelivered)
	}
	if given { // from 4.3, also where nothing is counted
		delete(h, headerAcquired)
	}
	if ok && counts {
		d.count = int(max(count, 0))
		d.carried = d.carriedOver(v, int(acquired))
	}
	if ok && counts || kind == typeQuorum {
		d.Attempt = d.count + 1 - d.carried
	}
}

// carriedOver is how many of the deliveries counted were in the queue that the
// message died in. Before 4.3 only the first delivery brings that queue's count,
// and a first return looks like it. From 4.3 the count goes on with it, while
// that of hand-overs begins anew after the first delivery: where it is the
// smaller one, it is this queue's alone.
func (d *delivery) carriedOver(v version, acquired int) int {
	reason, _ := d.Message.Header[prefixLast+"reason"].(string)
	switch given := reason == "rejected" || reason == "delivery_limit"; {
	case reason == "" || d.count == 0:
		return 0
	case !v.atLeast(4, 3):
		if reason == "rejected" && d.count == 1 {
			return 1
		}
		return 0
	case d.count > acquired:
		return d.count - acquired
	case given:
		return d.count // the first
	}
	return 0
}
