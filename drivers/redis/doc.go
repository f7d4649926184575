// Package redis carries polymq on Redis 7.0 and newer and Valkey 8 and newer.
// Import it for its effect:
//
//	import _ "github.com/polymq/polymq/drivers/redis"
//
//	conn, err := polymq.Open(ctx, "redis://user:password@localhost:6379/0", nil)
//
// The schemes are redis and valkey, and rediss and valkeys with TLS. The path
// is the number of the database, 0 by default. The host is the server. Each scheme
// has two more forms, with several hosts:
//
//	redis+sentinel://user:password@host1,host2,host3/0?master=name
//	redis+cluster://user:password@host1,host2,host3
//
// With +sentinel the hosts are sentinels, on port 26379 by default, and user and
// password those of the servers. With +cluster they are some nodes of a Redis
// Cluster: each queue is as a whole on one of its masters, different queues are on
// different ones, and there is no database. All follow a failover by themselves.
// Options:
//
//	vhost       namespace                                                default: default
//	lease       how long after the death of its process a held message
//	            comes again, 1s to 1h                                    default: 30s
//	durability  aof: durable exchanges and queues are refused where Redis
//	            has no append-only file, or evicts any key when its memory
//	            is full; memory: they are accepted, and may be lost;
//	            fsync: as aof, and what was confirmed has been written
//	            to the disk, for which Redis must be 7.2 or newer        default: aof
//	replicas    how many replicas have what was confirmed, 0 to 100      default: 0
//	timeout     for connecting, and for an answer, 100ms to 1m           default: 3s
//	pool        connections for calls to a server, 1 to 1000             default: 10
//
// With +sentinel also:
//
//	master             what the sentinels call the servers, required
//	sentinel-user      the user for the sentinels                        default: none
//	sentinel-password  and the password                                  default: none
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
// (its default) a crash loses the last second or two, with appendfsync always or
// durability=fsync nothing. Replication is asynchronous, so a failover may lose what
// was confirmed just before. With replicas=1 or more a publish is confirmed, an
// exchange, queue or binding declared, and a dead letter moved, once so many replicas
// have it; with durability=fsync too, once it is on their disks as well. Until so many
// are there it is tried again, and who gives up has ErrUnconfirmed. A failover to
// a replica that is one of those loses nothing then. Where more replicas exist than are waited
// for, it may be to one that is behind: wait for all but one, or have Redis choose
// among few. With replicas=0 set min-replicas-to-write in Redis, or a master that is
// cut off goes on confirming what is thrown away later. What a failover can undo
// in any case is settlements: what was acknowledged just before it comes again.
// Where the new master refuses what one that hung had been sent, that may have delivered
// it: the error is ErrUnconfirmed then, and wraps why.
//
// A server that takes no writes, since its memory is full (OOM) or it cannot write to
// its disk (MISCONF), makes publishers wait, as RabbitMQ's alarms do, and calls that
// write too; the state is blocked. Consuming goes on.
//
// A queue that a server lost leaves the topology when it is next used. Who holds
// messages of a queue during a failover may find them lost (ErrLost) after it. While a
// slot of a cluster is moved to another master key by key, what has to do with its
// queues waits, and a message that is published just then may be stored twice. The
// clocks of a cluster's nodes must agree.
//
// A message given back comes in its original place, before what nobody has
// touched. An entry that someone else put into the stream is delivered as a
// message with what can be read of it: its body field or an empty body, and
// the properties that are well formed.
//
// A program that publishes one message after another, each within a millisecond of
// the one before, looks for the next answer for up to 100 µs before it waits for it,
// if it has more than one processor and answers come as fast as that, as from the
// same machine. That halves the time of a publish, for up to a third more of the CPU.
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
// Two ACL users for the namespace default, with the least that they need. admin
// declares, binds and deletes, also what others need made for them (see below),
// and loads the library. app publishes, consumes, purges, inspects and verifies
// what is there; the change of the topology is refused with ErrPermission.
//
//	ACL SETUSER admin on >password resetkeys resetchannels ~polymq:{default}* ~polymq:{default:* &polymq:{default}:changed
//	ACL SETUSER admin -@all +@connection +info +time +publish +subscribe +cluster|slots +fcall +function|load
//	ACL SETUSER admin +@stream +@sortedset +@hash +get +set +exists +del +unlink
//
//	ACL SETUSER app on >password resetkeys resetchannels &polymq:{default}:changed ~polymq:{default:*
//	ACL SETUSER app ~polymq:{default} ~polymq:{default}:leases ~polymq:{default}:leader
//	ACL SETUSER app %R~polymq:{default}:version %R~polymq:{default}:topology %R~polymq:{default}:changes
//	ACL SETUSER app -@all +@connection +info +time +publish +subscribe +cluster|slots +fcall
//	ACL SETUSER app +@stream -xgroup|create -xgroup|destroy +@sortedset +@hash +get +set +exists +del
//
// Some publishes make something in the topology: the first with a Delay in a
// namespace, and the first with a TTL of its own for a queue without one. So do
// exclusive and auto-delete queues. An app's are refused (ErrPermission) until an
// admin's have done it. Where an app is the only one connected, queues that end by
// themselves stay until an admin is there.
//
// Settlements that the server refuses, since a right was taken away say, are kept, and
// sent again each second.
//
// Only a cluster needs cluster|slots. A sentinel's user needs
// +sentinel|get-master-addr-by-name and +sentinel|master.
//
// Each subscriber uses a connection of its own.
package redis
