// Package amqp carries polymq on RabbitMQ 3.10 and newer, through AMQP 0-9-1
// and the client github.com/rabbitmq/amqp091-go. Importing it registers the
// schemes amqp and amqps:
//
//	amqp://user:password@host1:5672,host2:5672/vhost?option=value
//
// User and password default to guest, the port to 5672 (amqps: 5671), the
// vhost to "/".
//
//	option           default  meaning
//	heartbeat        10s      a peer silent for three halves of this is lost; 1s to 1h
//	connect-timeout  10s      for one host: TCP, TLS and AMQP handshake; 100ms to 1h
//	name             polymq   the connections' name in RabbitMQ's own tools
//	management       none     address of the management API, http://host:15672, or
//	                          of several nodes, http://one:15672,two:15672; with user
//	                          and password of the URL unless it has its own
//
// amqps trusts the system's roots and wants a certificate for the host's name,
// unless these say otherwise; an https management API is checked alike:
//
//	ca           none   a PEM file of certificates to trust instead
//	cert, key    none   PEM files of the client's certificate and its key, read again
//	                    for each connection
//	server-name  none   what the certificate must be for, instead of the host
//	verify       full   none takes any certificate: whoever is between can read all
//	auth         plain  external: the client's certificate says who connects
//	                    (RabbitMQ's plugin rabbitmq_auth_mechanism_ssl)
//
// # Connections
//
// A Conn has two connections, one to publish and one to consume and declare, and
// where messages are delayed a third, which moves what is due. Each is supervised
// by a goroutine of its own: lost, it is made again, over all hosts in turn, with
// growing and random pauses of up to 1 s, for as long as it takes. Beyond that a
// Conn has one goroutine for what could not be sent at once and one that looks for
// delayed messages, and each connection one that writes and amqp091's two; each
// subscriber has one and amqp091's one. Where messages are delayed, a Conn has
// three more and a subscriber that move what is due. Each call that waits for an answer of the broker runs on a goroutine for
// its time, as does what looks up exchanges and levels for delayed messages.
//
// All subscribers share the consuming connection. One whose Close is not
// answered within 5 s breaks it off, which gives back what all of them hold: it
// comes again, with an attempt more.
//
// What the Conn has declared as transient is made anew on a connection that came back,
// before it is used, and what is durable where the broker has nothing of it any more:
// none of the queues, and where no queue was older than a minute or so when the
// connection was lost, none of the exchanges. A binding from an exchange that another
// program declares, and has not made anew yet, is tried for a minute, with a Warn log.
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
// A queue that is full and refuses is ErrRejected. RabbitMQ answers the same (a
// nack) while a quorum queue that the channel is new to has no leader, which is so
// for a moment after the loss of a node or a restart. So a nacked message is
// ErrRejected only where a queue that it goes to refuses what is beyond its limits;
// else it is sent again until the publish's ctx ends: after 100 ms, then twice that,
// up to once a second, and after ten seconds ever more rarely, up to every 30 s. The
// publishing channel is changed for it when nothing is in flight, since RabbitMQ may
// nack on the old one until the dead node is back, with a Warn log. Where a queue
// does refuse, and the channel is not older than 10 s, the message is sent up to four
// times, over 0.7 s, unless its exchange was seen to refuse to the last try, or this
// is a Conn's first channel. Other queues that a message goes to get a copy each time
// that it is sent again, and its order is lost.
//
// Of queues that this Conn has not declared so within a minute the driver asks what
// they refuse, the management API, or the broker as a subscriber does (see below;
// limits that a policy sets it does not see). Of what goes to an exchange only the
// management API tells: where it leads, and what the queues there refuse, which is
// believed for 10 s. Without it, a nack from an exchange counts as a refusal, unless
// a queue without a leader is likely, within 10 s of connecting: then the message is
// sent again for as long.
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
// A reply to amq.rabbitmq.reply-to (direct reply-to) is confirmed when the broker
// has it: whether the caller is still there RabbitMQ does not tell.
//
// # Queues
//
// All fields of routing.Queue are RabbitMQ's own arguments and flags. Where Type
// is empty, the first of these decides:
//
//	Transient, Exclusive, AutoDelete, MaxPriority     classic: quorum queues have none of it
//	MaxAttempts, dead letters that are to be safe     quorum: classic queues have neither
//	Overflow RejectPublish                            quorum: a classic queue can drop what was held
//	Expires, MaxBytes                                 classic: quorum queues have less of it
//	nothing of these                                  quorum
//
// What cannot be had together is errors.ErrUnsupported at Declare. Dead letters
// are made safe (x-dead-letter-strategy=at-least-once, x-overflow=reject-publish)
// unless BestEffortDeadLetter says that they need not be: classic queues, and
// those whose limits drop the head, cannot, and are refused without it.
//
// A quorum queue with Overflow RejectPublish takes one message more than its
// limit, and some more from publishers that do not wait, and then refuses until
// a fifth of its limit has gone (Features.RefusesLate). A durable classic one,
// where Type, MaxPriority or AutoDelete makes it so, is exact, but when the broker
// restarts, it comes back as one that drops its head before it learns that it
// refuses: of what it has with what subscribers held, the oldest beyond the limit
// are lost (or become dead letters). Declaring it is logged as a warning.
//
// A quorum queue with Expires is not used by being declared again, only by
// subscribers. From RabbitMQ 4 quorum queues heed the priority of
// messages although nobody asked for it: 4.0 gives those above 4 out twice as
// often, 4.3 by priority, in which none is like 4.
//
// An exclusive queue ends with the connection that consumes. When that comes
// back, the queue is made anew, empty, with the bindings that this Conn has made,
// before anything else is done with it, and its subscribers end with ErrNotFound.
// Until the broker has noticed the loss of the old connection it refuses that,
// for up to three heartbeats: meanwhile calls about the queue wait. What is
// published before it stands again does not reach it. Transient makes no
// difference to exclusive queues, and Topology does not show it.
//
// Quorum queues count attempts, classic queues do not: their Attempt is 0, and
// MaxAttempts is refused. Before RabbitMQ 4.3 messages that were only
// prefetched and given back count as well (Features.CountsReturned). Which
// kind a queue is, AMQP does not tell: whenever a subscriber begins to consume,
// at first and after a lost connection, it asks the management API, or else (also
// where that has not answered within 250 ms) provokes the broker's complaint about a declaration that differs (which
// leaves some lines in the broker's log and changes nothing). The second needs
// the configure permission for the queue, and where its name is longer than some 90
// bytes a Conn that has declared it, since RabbitMQ cuts its answers: who has neither is
// told so in the log, sees Attempt 0 on what comes for the first time, and attempts that
// ended in a delay do not count towards MaxAttempts.
//
// Attempts that end in Nack with a delay are counted by the library, since the
// broker counts those of one copy only. So a message whose attempts were used up
// in this way is given up when a subscriber has the queue: the one that nacked
// it, or the next.
//
// From RabbitMQ 4 a dead letter brings the count of the queue that it died in,
// which on 4.3 counts against the limit of the next one. A subscriber of a queue
// with MaxAttempts therefore puts one that was rejected or exhausted into the
// queue once more, as a new message at its end, before it hands it out; on 4.3
// that does not help those that expired or overflowed after some attempts.
// Elsewhere the library takes off what the message brought: on 4.3 as the
// broker's count of hand-overs tells, before that it takes the second delivery of
// a rejected message for its first.
//
// Quorum queues know no conditional deletion: IfUnused and IfEmpty are looked
// up first, and what arrives between the look and the deletion is deleted.
//
// Other programs can publish headers that amqp091 does not read: tables and lists
// more than 32 deep or of more than 8192 elements. It ends the connection on them.
// From then on this Conn takes such fields out, with an Error log, and the header
// x-unread names them: the message comes without them, and holds up nothing.
// Rejected, it is a dead letter with all that it had.
//
// # Delays
//
// What is delayed waits in durable quorum queues of the vhost named
// polymq.delay.*, made when first needed and shared by everybody: one for each
// power of two of 10 ms, so that delays are exact to 10 ms and the steps
// between them. The user needs the permissions configure, write and read on
// them: the broker refuses the delay otherwise (ErrPermission). What somebody
// deletes of it is made anew, without what was in it, by whoever delays something a
// minute after it was declared last; until then delays can be too short, and what is
// nacked with a delay can end in the queue polymq.delay.gone.
//
// A message with a Delay is confirmed when the first of them has it. Due, it
// comes to the queue polymq.delay.due; on the way priorities count for nothing.
// Each Conn to a vhost with that queue, whose user may delay messages, takes
// part in publishing from there to the messages' exchanges, confirmed, with the
// rights of its own user; it notices within 30 s that others have begun to
// delay, by publishing a message to that queue that comes back while there is
// none. One whose user may not is told so in the log, and takes no part until it
// is opened anew. What a queue refuses, or does not confirm within 10 s, or the user may
// not publish, is put by for 1.3 s to 41 s, again and again; queues that took
// it get another copy with each try. Where one is not confirmed, or not
// allowed, the others for the same exchange and key are put by without being
// tried, for 2 s to a minute. What is unroutable comes to the queue
// polymq.unroutable, without its TTL; that queue may be declared with any
// fields beforehand. As long as no Conn is open, what is due waits. A user ID
// arrives only where the connection that moves the message has the same user.
// DropUnroutable means nothing to a delayed message.
//
// Nack with a delay stores a copy, confirmed, before the original is
// acknowledged; its longest delay is 31 days. The user needs the permission to
// write to the queue as well; where a delay is refused, the message can still be
// settled in another way. The copy is the message as it was delivered: fields
// that a handler has set are not stored, but what it has changed inside Header or
// Body is. The times to live of the message and of its queue count anew when it
// is back. There is a relay for each queue that a message was ever delayed for;
// that of an exclusive or auto-delete queue ends a month after its last use.
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
// # Permissions
//
// What users of the vhost shop need, as RabbitMQ's configure, write and read: an
// administrator, who declares, binds and deletes; an application, which publishes,
// consumes, delays and verifies what is there, be it made by an administrator; one
// that delays nothing; and one that publishes to the exchange orders and no other.
//
//	rabbitmqctl set_permissions -p shop admin   .* .* .*
//	rabbitmqctl set_permissions -p shop app     ^polymq\.(delay\..*|unroutable)$ .* .*
//	rabbitmqctl set_permissions -p shop plain   ^$ .* .*
//	rabbitmqctl set_permissions -p shop orderer ^$ ^orders$ ^$
//
// The default exchange is amq.default there. To consume is read on the queue, to
// bind a queue write on it and read on the exchange. Refusals are ErrPermission
// and name what is missing. Verify needs no permission, but with the management
// option a user with the tag management. Some subscribers do more than consume, see
// Queues: they tell the log where they lack a permission for it.
//
// # From RabbitMQ 3 to 4
//
// RabbitMQ 4 gives each quorum queue that has no delivery limit one of 20: what
// is returned more often is dropped, or becomes a dead letter. Where MaxAttempts
// is 0, the driver declares on RabbitMQ 4 that there is no limit, but queues that
// were made on RabbitMQ 3 have no such argument, polymq.delay.due among them, and
// arguments cannot be changed. So before the upgrade, give all queues a policy with
// a limit that nothing reaches:
//
//	rabbitmqctl set_policy -p shop --apply-to queues endless ".*" '{"delivery-limit":1000000000}'
//
// RabbitMQ 3 takes no -1 there, and RabbitMQ 4 takes both. One policy applies to a
// queue: where there are others, add the limit to them. MaxAttempts is not touched,
// since the lower limit counts.
//
// Declare of such a queue on RabbitMQ 4 is ErrConflict, which says so, until the
// management option lets the driver see that policy: then the queue is what is
// declared. Without the option, delete the queue when it is empty and declare it
// anew. Delays need neither, but without the policy can lose messages; the log
// warns of it, and without the management option in any case.
//
// # What the management API is needed for
//
// Topology, Inspect, and Verify of bindings. Without the option they answer
// errors.ErrUnsupported. Declare needs it for queues that RabbitMQ 3 made.
// Inspect's Ready and Consumers are exact; Unsettled is what the API says, which
// can be five seconds old. The API shows AMQP's void as the text "undefined", and
// bytes as text; Topology takes the first for nil and the second for strings.
//
// # What RabbitMQ itself does not promise
//
// Quorum queues of RabbitMQ 4 mind Message.Priority though nobody has asked for
// priorities (Features.PlainPriorities): up to 4.2 those of 5 and more get two
// turns for each of the others, from 4.3 on the higher comes first, and what has
// none counts as 4. Only messages of one priority keep their order there.
//
// The nodes of a cluster take one that hangs, its connections open, for lost after
// their net_ticktime, 60 s by default. Until then what the clients of that node held
// does not come again, and a channel that is new to a queue which it led, as each
// subscriber's is, waits for up to half a minute at a time.
//
// Killed with -9, a broker can forget what was declared within the last
// seconds, with all that was published to it. A queue that is deleted and
// declared again within a few milliseconds keeps the consumers of the old one,
// which are told nothing, and what it delivers to them is held until their
// subscriber ends: DeleteQueue waits 200 ms where a queue has consumers, but
// other programs may not. In a cluster of 3.10 a consumer whose queue is deleted just
// when it begins is now and then not told either: so a subscriber to which nothing
// comes asks for its queue after 5 to 10 s, and then each minute, which takes it a
// channel for a moment. Between the nodes of a cluster a binding made on one can reach
// another a little later.
package amqp
