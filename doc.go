// Package polymq publishes and consumes messages through exchanges, queues and
// bindings. The URL that a program opens decides which broker carries them:
// RabbitMQ, NATS JetStream, Redis Streams, or this process's memory.
//
//	import _ "github.com/polymq/polymq/drivers/amqp"
//
//	conn, err := polymq.Open(ctx, "amqp://guest:guest@localhost:5672/", nil)
//	err = conn.Declare(ctx, routing.Topology{
//		Exchanges: []routing.Exchange{{Name: "orders", Kind: routing.Topic}},
//		Queues:    []routing.Queue{{Name: "billing"}},
//		Bindings:  []routing.Binding{{Exchange: "orders", Queue: "billing", Key: "order.*"}},
//	})
//	pub, err := conn.Publisher(ctx, "orders", nil)
//	err = pub.Publish(ctx, &polymq.Message{Key: "order.paid", Body: body})
//	sub, err := conn.Subscriber(ctx, "billing", nil)
//	err = sub.Run(ctx, func(ctx context.Context, d *polymq.Delivery) error { ... })
//
// A program behaves the same whichever URL it is given. What a backend cannot
// do is refused as early as can be, by Open, by Declare, or by the call, with
// an error that says what to do; nothing is silently left out or weakened.
// Conn.Features says what the backend has.
//
// # Promises
//
// They hold on every backend, and the package conformance tests each of them
// by its number and name.
//
// Publishing:
//
//  1. Confirmed. Publish returns nil only when every queue that the message
//     was routed to has it, as safely as the queue was declared.
//  2. Three outcomes. A message is confirmed; or refused, ErrRejected: at
//     least one queue would not take it, others may have it; or unknown,
//     ErrUnconfirmed: the connection or ctx ended first. Unknown is never
//     reported as another. The library tries again by itself, under the same
//     ID, until ctx ends; within Features.DedupWindow that leaves no second
//     copy.
//  3. Unroutable is heard. A message that no queue takes is ErrUnroutable, on
//     that call, for that message, unless the publisher has DropUnroutable. A
//     delayed message is routed when it is due; what no queue takes then goes
//     to the exchange's alternate, else to the queue UnroutableQueue.
//  4. Nothing made up. Publishing to an exchange that does not exist is
//     ErrNotFound, and creates nothing.
//  5. One copy. A queue gets one copy, however many bindings, paths or keys
//     lead to it; retries beyond the deduplication window aside.
//  6. Order. What one publisher publishes one after another reaches the
//     consumer of a queue in that order; redelivered messages and retried
//     publishes aside. Features.Requeue says where a redelivered one stands.
//  7. Bounded. A publisher has at most its window on the way; a full window
//     blocks, and the end of ctx ends the wait.
//
// Topology:
//
//  8. Idempotent. Declaring the same again is nothing; declaring it
//     differently is ErrConflict, naming the field, from any process.
//  9. In force. When Declare, Bind, Unbind or a deletion has returned, every
//     publish that starts afterwards, from any process, is routed by it.
//  10. Durable. Exchanges, queues, bindings and messages that are not
//     Transient survive a restart of the broker. A broker that would forget
//     them is refused at Declare, unless the URL accepts it.
//  11. Any name. Names are 1 to 255 bytes of UTF-8 and keys 0 to 255, without
//     control characters. amq. is reserved; amq.direct, amq.topic, amq.fanout,
//     amq.headers and amq.match are always there.
//  12. Routing is RabbitMQ's: direct, fanout, topic and headers exchanges, the
//     default exchange, bindings between exchanges, alternate exchanges, CC
//     and BCC.
//
// Consuming:
//
//  13. At least once. An unsettled message comes again: at once when its
//     subscriber closes, within Features.Lease when its process dies.
//  14. Held is held. While its connection lives, what a subscriber holds goes
//     to nobody else, however long a handler takes, but for
//     Features.HoldLimit and a process paused beyond the lease. A hold that
//     was lost makes its settlement ErrLost; it settles no other message.
//  15. Counted. Delivery.Attempt is 1 plus the deliveries that ended in Nack,
//     in the end of a lease or of a connection, or were handed out and given
//     back by Close. Messages that were merely prefetched and given back do
//     not count (Features.CountsReturned: on RabbitMQ before 4.3 they do). It
//     is 0 where the queue cannot count.
//  16. Its queue only. A nacked message returns to its own queue, never to the
//     exchange, and not before its delay.
//  17. Dead letters. Rejected, expired and exhausted messages, and those that
//     a queue's limits push out, go to the queue's dead-letter exchange, with
//     the queue, the reason, the count and the time on them, or are dropped
//     where there is none: at least once. Where the broker gives less, Declare
//     refuses, unless the queue has BestEffortDeadLetter.
//  18. Prefetch. A subscriber holds at most Prefetch unsettled messages.
//  19. Drained. Run ends by finishing what runs and giving back the rest.
//  20. Settled once. A second settlement is ErrSettled and harms nothing.
//
// Connections:
//
//  21. Comes back. Publishers and subscribers go on by themselves after the
//     broker restarted or the connection was cut. Meanwhile calls wait for
//     their ctx, and Health, Options.OnState and the log say so. What the
//     connection has declared and the broker has lost is made anew, empty,
//     before anything is published or consumed again; but for queues with
//     AutoDelete or Expires, which end by themselves.
//  22. Ends. Close is idempotent, ends within its ctx, and leaves no
//     goroutine.
//  23. Refused early. An unknown URL option or scheme, a broker too old, a
//     feature of Options.Require that is missing: Open fails and says what to
//     do.
//  24. Side by side. What is stored in a broker carries a version. This
//     version of the library works beside the one before it, and refuses what
//     a newer one wrote.
//
// What a queue can do, its limits, its messages' time to live, priorities, one
// active consumer, exclusive queues and the others, is said at the fields of
// routing.Queue, and holds on every backend that has the feature. Where
// messages expire, wait for a delay or are moved as dead letters on NATS, Redis
// and in memory, some process that is connected to the namespace does it: what
// falls due while there is none is done when the next one connects.
//
// # Contexts
//
// A call that can touch the network takes a ctx and returns soon after it
// ends, with its error. What a call had begun by then may or may not be done,
// and its comment says what that means. The ctx of Open, Publisher and
// Subscriber bounds these calls only, not the life of what they return.
//
// # Concurrency
//
// All methods of Conn, Publisher, Subscriber, Requester, Receipt and Delivery are
// safe for concurrent use. Messages and headers are plain data and are not.
//
// # Goroutines
//
// The number of goroutines does not depend on the number of messages. Conn,
// Publisher and Subscriber have none but those of their driver, whose package
// documents how many. Run has SubscriberOptions.Concurrency of them beside its
// caller's, and a Requester has one. Conn.Close has one for each publisher and subscriber that is still
// open, until it returns.
//
// # Observing
//
// Options.Observers are told of every publish, delivery, handler and
// settlement, and of the connection's state: see Hooks. The module otelpolymq
// makes OpenTelemetry's traces and metrics of it.
//
// # Errors
//
// Every error of a method is an *Error, but for Publish, whose error is a
// *PublishError, and for what middleware returns. errors.Is finds the
// sentinels of this package and errors.ErrUnsupported in it, errors.As the
// client library's own error.
package polymq
