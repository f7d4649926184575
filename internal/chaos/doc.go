// Package chaos is the fault run: brokers and clients are killed, paused, cut off and
// filled up while messages flow, and afterwards the promises are checked.
//
//	make chaos                                   # every backend, 60 s each
//	make chaos CHAOS='amqp nats-cluster'         # these
//	make chaos CHAOS_SECONDS=600 CHAOS_SEED=17   # longer; what the seed 17 draws
//
// make test has a run of 20 s on each; while one is disturbed the next starts. The kinds
// of faults come in an order that the seed draws, each once, and then any of them until
// the time is over, so that a run takes longer than that where brokers take long to
// start. The seed repeats what is done, not how it falls together with what the
// processes are at.
//
// # What happens
//
// Two processes publish to a topic exchange, 200 messages a second each; two consume
// from four queues, of which one is mostly full and refuses, one has both consumers, and
// the others one. Some messages are given back, some held for longer than the lease.
// Each process keeps a ledger, a file to which it appends before it publishes, when it
// has the outcome, and before it settles: the end of a process loses no knowledge.
//
//	kill         kill -9 of the broker, and a restart
//	leader-kill  kill -9 of the node of a cluster that leads most, started again when
//	             others lead. On RabbitMQ and NATS a majority goes on meanwhile, and so
//	             do the faults that take no node away
//	pause        SIGSTOP of the broker, or of the node that leads, for 1 s to 4 s
//	cut          connections reset: all, or those to one node
//	stall        connections half-open: nothing passes for 1 s to 2.5 s
//	latency      20 ms to 200 ms each way
//	client-kill  kill -9 of a client, which is started again; by itself, and during
//	             other faults
//	disk-full    NATS, Redis: a file system without a byte left. Redis that syncs each
//	             write ends then, and NATS serves JetStream no longer, so they are started
//	             again when there is room. A Redis whose file the full disk has torn has
//	             it mended when it is started again, as an operator would do: see TestMend
//	             of internal/testbroker. RabbitMQ: its disk alarm, since it does not let
//	             it come so far
//	memory-full  RabbitMQ: its memory alarm; Redis: maxmemory. NATS has nothing like
//	             it for queues that are on disk
//
// # What is checked
//
// Without exception: each message that was confirmed is delivered from each queue that
// it was routed to; none is delivered that all its queues had refused; none has another
// outcome than confirmed, refused or unknown; all clients that live go on after each
// fault; none gives up; the topology is what was declared.
//
// The others are checked where a fault is no reason for what is seen, since from outside
// nobody can tell whether a publish was repeated, or a message delivered and not yet
// handed out: the order of what one process published in queues with one consumer; the
// attempts, also after a Nack; that nothing that is held goes to another consumer. A
// latency and the end of an other client are no reasons.
//
// How long after the broker, or the new leader, is ready each client gets its first
// confirmation or delivery is told; more than Bar is an error only where CHAOS_SECONDS
// is set, since it depends on what else the machine does. A cluster is ready when it
// says itself, asked again and again, that what the killed node led is led by others:
// RabbitMQ's queues, NATS' streams and their consumers, Redis' slots, or the sentinels'
// master.
//
// # What no loss rests on
//
// RabbitMQ: quorum queues, which are the default. NATS: a message is with the kernel
// before it is confirmed, and so outlives its process; in a cluster, replicas=3. Redis:
// alone, appendfsync always, since with everysec what was confirmed can still be in
// the process, which a kill loses; Redis Cluster and sentinels, a WAIT for all
// replicas (replicas=1 of one, replicas=2 of two). With fewer than all, a failover may be
// to one that is behind, or the old master may go on confirming with a replica that
// does not know of it yet. The price is that a shard with a replica down confirms
// nothing: behind sentinels, the time counts from when the third server is back.
//
// RabbitMQ 3.10 that is killed within seconds of a declaration can forget it, so it is
// not killed before ten seconds are over.
//
// # Does it find anything
//
// TestLiar runs it on a driver that confirms before it sends, and wants it to exit with
// 1. TestCheck shows it ledgers of each broken promise.
package chaos
