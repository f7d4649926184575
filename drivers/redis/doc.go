// Package redis carries polymq on Redis 7.0 and newer and Valkey 8 and newer.
// Import it for its effect:
//
//	import _ "github.com/polymq/polymq/drivers/redis"
//
//	conn, err := polymq.Open(ctx, "redis://user:password@localhost:6379/0", nil)
//
// The schemes are redis and valkey, and rediss and valkeys with TLS. The path
// is the number of the database, 0 by default. One host is allowed. Options:
//
//	vhost       namespace                                                default: default
//	lease       how long after the death of its process a held message
//	            comes again, 1s to 1h                                    default: 30s
//	durability  aof: durable exchanges and queues are refused where Redis
//	            has no append-only file, or evicts any key when its memory
//	            is full; memory: they are accepted, and may be lost      default: aof
//	timeout     for connecting, and for an answer, 100ms to 1m           default: 3s
//	pool        connections for calls, 1 to 1000                         default: 10
//
// rediss and valkeys trust the system's roots and want a certificate for the
// host's name, unless these say otherwise:
//
//	ca           a PEM file of certificates to trust instead             default: none
//	cert, key    PEM files of the client's certificate and its key, read
//	             again for each connection                               default: none
//	server-name  what the certificate must be for, instead of the host   default: none
//	verify       none takes any certificate: whoever is between can read
//	             all                                                     default: full
//
// Each queue is a stream with one consumer group. What must be atomic is a Redis
// function of the library polymq1, which Open loads where it is missing or
// older. docs/WIRE.md describes what is stored.
//
// How safe a confirmed message is depends on Redis: with appendfsync everysec
// (its default) a crash loses the last second or two, with appendfsync always
// nothing; replication is asynchronous, so a failover may lose what was
// confirmed just before.
//
// A message given back comes in its original place, before what nobody has
// touched. An entry that someone else put into the stream is delivered as a
// message with what can be read of it: its body field or an empty body, and
// the properties that are well formed.
//
// Queues with priorities, limits or a single active consumer pass every entry
// through functions, which costs them speed and some 100 bytes of the server's
// memory more for each message that waits; other queues do not feel it. The
// functions keep limits exactly, whoever publishes. As on RabbitMQ, what a
// subscriber has room for counts as delivered, and not in the limits: so a queue
// has its limit and that much more until the subscriber takes it, or has not been
// heard of for 3 s. What was given back with a delay counts when that is over. TTLs
// and delays go by the server's clock.
//
// # Permissions
//
// Three ACL users for the namespace default, the least that they need. admin
// declares, binds and deletes, also what others need made for them (see below),
// and loads the library. app publishes, consumes, purges, inspects and verifies
// what is there; the change of the topology is refused with ErrPermission.
//
//	ACL SETUSER admin on >password resetkeys resetchannels ~polymq:{default}* ~polymq:{default:* &polymq:{default}:changed
//	ACL SETUSER admin -@all +@connection +info +time +publish +subscribe +fcall +function|load
//	ACL SETUSER admin +@stream +@sortedset +@hash +get +set +exists +del +unlink
//
//	ACL SETUSER app on >password resetkeys resetchannels &polymq:{default}:changed ~polymq:{default:*
//	ACL SETUSER app ~polymq:{default} ~polymq:{default}:leases ~polymq:{default}:leader
//	ACL SETUSER app %R~polymq:{default}:version %R~polymq:{default}:topology %R~polymq:{default}:changes
//	ACL SETUSER app -@all +@connection +info +time +publish +subscribe +fcall
//	ACL SETUSER app +@stream -xgroup|create -xgroup|destroy +@sortedset +@hash +get +set +exists +del
//
// Some publishes make something in the topology: the first with a Delay in a
// namespace, and the first with a TTL of its own for a queue without one. So do
// exclusive and auto-delete queues. An app's are refused (ErrPermission) until an
// admin's have done it. Where an app is the only one connected, queues that end by
// themselves stay until an admin is there.
//
// Each subscriber uses a connection of its own.
package redis
