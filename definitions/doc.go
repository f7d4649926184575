// Package definitions reads and writes RabbitMQ's definitions.json, so that the
// exchanges, queues and bindings of a running RabbitMQ can be laid on another
// broker in one step:
//
//	data, err := os.ReadFile("definitions.json") // rabbitmqctl export_definitions, or GET /api/definitions
//	topology, lost, err := definitions.Import(data, &definitions.ImportOptions{VHost: "/"})
//	err = conn.Declare(ctx, topology)            // on NATS, Redis or in memory
//
// and back with Export. What a topology cannot carry is no error: it is in a
// list of losses, each with its element and the reason.
//
// # What is carried
//
// Exchanges with their kind, durability and alternate; queues with their type,
// durability, and the arguments that fields of routing.Queue stand for; bindings
// with their arguments, to queues and to exchanges. A queue without
// x-queue-type is a classic one, and is written so. From RabbitMQ 4.0 on a
// quorum queue without x-delivery-limit gives up at the 20th return, and is read
// so.
//
// # Policies
//
// RabbitMQ's policies set such arguments by the name of the queue. Other brokers
// have none, so they are applied to the queues and exchanges that they match, as
// RabbitMQ does it: the policy of the highest priority only; of two numbers the
// smaller counts, of other values the queue's own.
package definitions
