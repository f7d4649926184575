// Package amqp carries polymq on RabbitMQ 3.10 and newer, through AMQP 0-9-1
// and the client github.com/rabbitmq/amqp091-go. Importing it registers the
// schemes amqp and amqps:
//
//	amqp://user:password@host1:5672,host2:5672/vhost?option=value
//
// User and password default to guest, the port to 5672 (amqps: 5671), the
// vhost to "/". amqps trusts the system's roots.
//
//	option           default  meaning
//	heartbeat        10s      a peer silent for three halves of this is lost; 1s to 1h
//	connect-timeout  10s      for one host: TCP, TLS and AMQP handshake; 100ms to 1h
//	name             polymq   the connections' name in RabbitMQ's own tools
//	management       none     address of the management API, http://host:15672;
//	                          with user and password of the URL unless it has its own
//
// # Connections
//
// A Conn has two connections, one to publish and one to consume and declare.
// Each is supervised by a goroutine of its own: lost, it is made again, over
// all hosts in turn, with growing and random pauses of up to 5 s, for as long
// as it takes. Beyond that a Conn has one goroutine for what could not be sent
// at once, and each connection one that writes and amqp091's two; each
// subscriber has one and amqp091's one. Each call that waits for an answer of
// the broker runs on a goroutine for its time.
//
// # Publishing
//
// All publishers share one confirming channel. Publish never blocks: what
// cannot be sent waits, in order, within the caller's window. What was not
// confirmed when a connection was lost is sent again with the same ID, which
// RabbitMQ does not recognise: a second copy is possible (DedupWindow is 0).
// Where such a second try is refused, the error is ErrUnconfirmed and wraps why,
// since the first may have been stored.
//
// A queue that is full and refuses (x-overflow=reject-publish) is ErrRejected.
// RabbitMQ answers the same while a quorum queue has no leader, which is so for
// a moment after a restart: within 10 s of connecting, a refused message is
// sent up to four times, over 0.7 s, before it is ErrRejected, unless its
// exchange was seen to refuse to the last try. Other queues that the message
// goes to get a copy each time, and its order is lost.
//
// The header and properties of a message travel in one frame, 128 KiB unless
// the broker asks for less: a larger header is ErrTooLarge, as are lists and
// tables of more than 8192 elements, more than 8128 headers, and more than 32
// levels, which AMQP clients do not read. NaN and infinite numbers in a header
// are errors.ErrUnsupported. Headers whose names begin with "polymq-" travel as
// "polymq-app-"; only other AMQP clients see that.
//
// A message on which the broker ends the connection is tried alone; after three
// connections it is given up as ErrUnconfirmed, and the others go on.
//
// # Queues
//
// A durable queue is a quorum queue, a Transient one classic, unless Type says
// otherwise. Dead letters are made safe (x-dead-letter-strategy=at-least-once,
// x-overflow=reject-publish) unless BestEffortDeadLetter says that they need
// not be; classic queues cannot, and are refused without it.
//
// Quorum queues count attempts, classic queues do not: their Attempt is 0, and
// MaxAttempts is refused. Before RabbitMQ 4.3 messages that were only
// prefetched and given back count as well (Features.CountsReturned). Which
// kind a queue is, AMQP does not tell: whenever a subscriber begins to consume,
// at first and after a lost connection, it asks the management API, or else
// provokes the broker's complaint about a declaration that differs (which
// leaves some lines in the broker's log and changes nothing). The second needs
// the configure permission for the queue: a user who has neither is told so in
// the log, sees Attempt 0 on what comes for the first time, and attempts that
// ended in a delay do not count towards MaxAttempts.
//
// Attempts that end in Nack with a delay are counted by the library, since the
// broker counts those of one copy only.
//
// From RabbitMQ 4 a dead letter brings the count of the queue that it died in.
// Of that the library takes off the delivery that rejected it, the only one as a
// rule. On 4.3 attempts before that one still count, in Attempt and towards
// MaxAttempts of the next queue: keep MaxAttempts off queues that are fed by
// dead letters there. Before 4.3 Attempt is 1 on the second delivery of a
// rejected message too, and right from the third.
//
// Quorum queues know no conditional deletion: IfUnused and IfEmpty are looked
// up first, and what arrives between the look and the deletion is deleted.
//
// # Delays
//
// Nack with a delay stores a copy, confirmed, before the original is
// acknowledged. It waits in durable queues of the vhost named polymq.delay.*,
// made when first needed and shared by everybody: one for each power of two of
// 10 ms, so that delays are exact to 10 ms and end after a month, and one relay
// for each queue that a message was ever delayed for. The user needs the
// permissions configure, write and read on them, and write on the queue: the
// broker refuses the delay otherwise (ErrPermission), and the message can still
// be settled in another way. The copy is the message as it was delivered: fields
// that a handler has set are not stored, but what it has changed inside Header
// or Body is.
//
// A copy whose queue is missing when it is due waits in the relay, as does one
// that the queue refuses (reject-publish, and full): it holds up others of that
// queue only. The broker tries again every three minutes, so that it can be so
// late. A queue made anew gets its copies once a subscriber begins to consume
// it, or nacks with a delay. DeleteQueue removes the relay with the queue: copies
// under way then end, as do the queue's other messages, but can be had for a
// week in the queue polymq.delay.gone, their queue in the header polymq-queue.
// A queue deleted by other means leaves its relay behind.
//
// # What the management API is needed for
//
// Topology, Inspect, and Verify of bindings. Without the option they answer
// errors.ErrUnsupported. Inspect's Ready and Consumers are exact; Unsettled is
// what the API says, which can be five seconds old. The API shows AMQP's void
// as the text "undefined", and bytes as text; Topology takes the first for nil
// and the second for strings.
//
// # What RabbitMQ itself does not promise
//
// Killed with -9, a broker can forget what was declared within the last
// seconds, with all that was published to it. A queue that is deleted and
// declared again within a few milliseconds keeps the consumers of the old one,
// which are told nothing, and what it delivers to them is held until their
// subscriber ends: DeleteQueue waits 200 ms where a queue has consumers, but
// other programs may not. Between the nodes of a cluster a
// binding made on one can reach another a little later.
package amqp
