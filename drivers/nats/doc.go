// Package nats runs polymq over NATS JetStream. Import it for its side effect,
// and open a nats or tls+nats URL:
//
//	import _ "github.com/polymq/polymq/drivers/nats"
//
//	conn, err := polymq.Open(ctx, "nats://user:password@host1:4222,host2:4222/?vhost=shop", nil)
//
// The port is 4222 where none is given. Without a password the part before the
// @ is a token. All hosts must belong to one cluster. Each is tried once by
// Open; afterwards a lost connection is made anew, to any of them, until Close.
// While a cluster elects who answers for JetStream, Open waits, for up to 15 s.
//
//	option    default   meaning
//	vhost     default   the namespace; any name. Namespaces share nothing.
//	lease     30s       how long after the death of its process a message that it
//	                    held comes again; 1s to 10m. Where programs differ, the
//	                    longest counts for a queue that they share.
//	replicas  1         copies of what is made from now on: 1, 3 or 5. What is there
//	                    already stays as it is.
//	creds     none      a file with a user's JWT and seed, instead of a user and
//	                    password; read again for each connection
//	nkey      none      a file with a user's nkey seed, likewise
//
// tls+nats trusts the system's roots and wants a certificate for the host's
// name, unless these say otherwise:
//
//	ca           none   a PEM file of certificates to trust instead
//	cert, key    none   PEM files of the client's certificate and its key, read
//	                    again for each connection
//	server-name  none   what the certificate must be for, instead of the host
//	verify       full   none takes any certificate: whoever is between can read all
//
// # Servers
//
// nats-server 2.12.2 is the oldest that holds the promises: a change of the
// topology is an atomic batch, and a client's lease on it is a message on
// condition of another subject's last sequence, with a time to live. 2.11
// brought the second and 2.12.0 the first, but a single server of 2.12.0 does
// not answer the batches that polymq sends, and one of 2.12.1 stops answering
// when clients change the topology and renew leases at once. Older servers, and
// accounts without JetStream, are refused by Open.
//
// # What a confirmation is worth
//
// A confirmed message is with the kernel of the server, or of a majority of the
// replicas: it survives the end of the server's process. JetStream syncs to
// disk every two minutes unless the server is configured with
// "sync_interval: always", so a single server that loses power can lose what
// was confirmed since. Messages of a transient queue are kept in memory.
//
// Where the server's or the account's storage is used up, or its disk is full, publishers
// wait, as for RabbitMQ's alarms.
//
// # Permissions
//
// Two users of an account for the namespace default, with the least that they
// need: admin declares, binds and deletes; app publishes, consumes, purges and
// verifies what is there. What is not allowed is ErrPermission, which names the
// subject. Programs of one namespace need the same account; a server knows no
// wildcard for part of a stream's name, so who is to be kept from the streams of
// other namespaces needs another account.
//
//	authorization { users = [
//	  { user: admin, password: password, permissions: {
//	      publish: ["$JS.API.>", "$JS.ACK.>", "$JS.FC.>", "polymq.default.>"]
//	      subscribe: ["_INBOX.>", "polymq.default.>"], allow_responses: true } }
//	  { user: app, password: password, permissions: {
//	      publish: {
//	        allow: [
//	          "$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*", "$JS.API.DIRECT.GET.*"
//	          "$JS.API.STREAM.MSG.DELETE.*", "$JS.API.STREAM.PURGE.*", "$JS.API.CONSUMER.INFO.*.*"
//	          "$JS.API.CONSUMER.CREATE.*.>", "$JS.API.CONSUMER.MSG.NEXT.*.*", "$JS.ACK.>", "$JS.FC.>"
//	          "polymq.default.q.>", "polymq.default.held.*", "polymq.default.t.*.l.*"
//	        ]
//	        deny: ["$JS.API.STREAM.MSG.DELETE.POLYMQ_default_topology", "$JS.API.STREAM.PURGE.POLYMQ_default_topology"]
//	      }
//	      subscribe: ["_INBOX.>", "polymq.default.changed", "polymq.default.held.*"], allow_responses: true } }
//	] }
//
// Some publishes make something in the topology: the first with a Delay in a
// namespace, and the first with a TTL of its own for a queue without one. So do
// exclusive and auto-delete queues. An app's are refused (ErrPermission) until an
// admin's have done it. Where an app is the only one connected, queues that end by
// themselves stay until an admin is there.
//
// # Limits
//
//   - A queue with MaxLength, MaxBytes, MaxPriority or SingleActiveConsumer has no
//     consumer of the server's: what stands in it follows from the order of the
//     messages in its stream, which every connection reads (without the bodies)
//     that has to do with the queue other than by publishing to one without
//     limits, until it has had nothing to do with it for 30 s. It holds some 150
//     bytes there for each message that waits. Whatever
//     several processes do at once, they see one order of it; a connection that
//     is behind only learns later. Two goroutines run for each such queue, now
//     and then a third, and one for each of its subscribers. Where somebody
//     purges its stream by the server's own means, subscribers lose what they
//     hold as soon as a connection notices. Nobody must delete single messages
//     from it: of their priority and size connections may then think differently,
//     and hence of what is next, or of what a limit refuses.
//   - In the other queues a message of which the time is over is found by looking
//     at the head of the queue. Where messages were given back, the oldest of
//     them is taken for the head.
//   - A publish to a queue that refuses is confirmed when the connection has read
//     that far, a round trip later than others.
//   - A queue with AutoDelete or Expires counts a subscriber whose process died for
//     three times its sign of life, which is every third of the lease, but every
//     10 s at least and every second at most.
//   - The deduplication window is 20 s. A server that restarts forgets the ids of
//     messages that were already consumed: a publish that is retried across the
//     restart may then leave a second copy.
//   - A message that is given back comes before those that nobody has touched, in
//     the order in which messages were given back.
//   - The largest message is 16 MiB, or the server's max_payload (1 MiB by
//     default) less 64 KiB for the properties, whichever is less.
//   - The properties of a message, headers among them, take 64 KiB at most.
//   - The server does not tell one delivery of a message from the next: a
//     settlement that is on its way for longer than the rest of its lease settles
//     the delivery that another subscriber has by then.
//   - A subscriber whose process died is counted by Inspect for up to 30 s, with
//     the messages that it held; for the lease in a queue of the first kind.
//
// docs/WIRE.md specifies what is stored.
package nats
