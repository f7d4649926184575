// Package config reads a program's broker URL and topology from files.
//
//	url, err := config.URL("app.ini")                // POLYMQ_URL, else the file
//	conn, err := polymq.Open(ctx, url, nil)
//	topology, err := config.ReadTopology("topology.yaml")
//	plan, err := conn.Plan(ctx, topology)            // what would change
//	err = conn.Declare(ctx, topology)
//
// It is a module of its own, since it requires an INI and a YAML library. A
// program that needs no file has enough in polymq.URLFromEnv, by which URL, too,
// reads the environment.
//
// # URL files
//
// All that a connection is configured by is in its URL, so a file has one key.
// Its name ends in .ini
//
//	[polymq]
//	url = amqp://user:password@rabbit:5672/shop
//
// or in .yaml or .yml
//
//	polymq:
//	  url: amqp://user:password@rabbit:5672/shop
//
// What else is in the file is the program's own; an unknown key of the section
// polymq is refused, with its line.
//
// # Topology files
//
// A topology is a .yaml, .yml or .json file with the fields of
// routing.Topology, in lower case and with _ between words (see its
// UnmarshalJSON):
//
//	exchanges:
//	  - name: orders
//	    kind: topic
//	queues:
//	  - name: billing
//	    ttl: 30s
//	    dead_letter_exchange: dead
//	bindings:
//	  - exchange: orders
//	    queue: billing
//	    key: order.*.paid
package config
