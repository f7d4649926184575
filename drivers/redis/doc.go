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
// A user with an ACL needs at least
//
//	~polymq:* &polymq:* +@connection +@stream +@sortedset +@hash +@string
//	+exists +del +unlink +time +info +publish +subscribe +fcall +function|load
//
// Each subscriber uses a connection of its own.
package redis
