package definitions_test

import (
	"fmt"

	"github.com/polymq/polymq/definitions"
)

// What a RabbitMQ exported becomes a topology for any backend, with a list of
// what it could not carry.
func ExampleImport() {
	data := []byte(`{
	  "rabbit_version": "3.13.7",
	  "policies": [{"vhost": "/", "name": "limits", "pattern": "^orders", "apply-to": "queues", "definition": {"max-length": 1000}}],
	  "exchanges": [{"name": "shop", "vhost": "/", "type": "topic", "durable": true, "arguments": {}}],
	  "queues": [{"name": "orders.eu", "vhost": "/", "durable": true, "arguments": {"x-queue-type": "quorum", "x-delivery-limit": 4, "x-queue-leader-locator": "balanced"}}],
	  "bindings": [{"source": "shop", "vhost": "/", "destination": "orders.eu", "destination_type": "queue", "routing_key": "order.eu.#", "arguments": {}}]
	}`)
	topology, lost, err := definitions.Import(data, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	q, b := topology.Queues[0], topology.Bindings[0]
	fmt.Println(q.Name, q.MaxAttempts, q.MaxLength)
	fmt.Println(b)
	fmt.Println("lost:", lost)
	// Output:
	// orders.eu 5 1000
	// binding "shop" -> "orders.eu", key "order.eu.#"
	// lost: [queue "orders.eu": x-queue-leader-locator: only RabbitMQ has it]
}
