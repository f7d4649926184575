// Package routing is the vocabulary of exchanges, queues and bindings, and the
// matcher that says which queues take a message. It routes as RabbitMQ 4 does,
// needs no broker and imports only the standard library.
//
//	table, err := routing.NewTable(routing.Topology{
//		Exchanges: []routing.Exchange{{Name: "orders", Kind: routing.Topic}},
//		Queues:    []routing.Queue{{Name: "billing"}},
//		Bindings:  []routing.Binding{{Exchange: "orders", Queue: "billing", Key: "order.*.paid"}},
//	})
//	queues, err := table.Route(nil, "orders", "order.eu.paid", nil) // [billing]
//
// # Keys
//
// A message has a routing key, and as many more as its headers CC and BCC, each
// a list of strings, hold. A binding of a direct or topic exchange matches when
// it matches any of them. Whatever the number of keys, bindings and ways that
// lead to it, a queue takes a message once.
//
// # Exchanges
//
//	kind     a binding matches when
//	direct   its key is equal to a routing key, byte for byte
//	fanout   always
//	topic    its key, as a pattern, matches a routing key
//	headers  its arguments match the message's headers
//
// The default exchange, whose name is "", leads to the queue that a routing key
// names. It has no other bindings and takes none. The exchanges amq.direct,
// amq.fanout, amq.headers, amq.match (headers too) and amq.topic are always
// there; every other name that begins with "amq." is refused.
//
// Further kinds can be registered (RegisterKind); ConsistentHash is. A kind that
// this process does not know is refused by Validate. A table takes it, since
// another process may have declared it on the same broker, but does not guess: a
// message that comes to it is errors.ErrUnsupported.
//
// # Topic patterns
//
// Keys are split into words at dots. The empty key has no words; in any other,
// empty words count. In a binding key the word * stands for exactly one word,
// which may be empty, and # for any number of words, none included; both only
// as whole words (a* is a literal). At most two words may be #. In a routing
// key they are literals.
//
//	routing key  matches                   does not match
//	""           ""  #  #.#                *
//	a            a  *  #  a.#  #.*  *.#    ""  a.*  *.*
//	a.b          a.*  #.b  a.#  *.*        a  *
//	a..b         a..b  a.*.b  a.#          a.b  a.*
//	.            *.*  #.*                  *  ""
//
// # Headers
//
// The argument x-match says what the others mean:
//
//	x-match      matches when                          arguments that begin with "x-"
//	all          every argument matches (the default)  are ignored
//	any          one argument matches                  are ignored
//	all-with-x   every argument matches                count, but for x-match
//	any-with-x   one argument matches                  count, but for x-match
//
// Where no arguments are left, all always matches and any never. An argument
// matches when the message has a header of that name and the argument is nil or
// equal to it: integers by value, whatever their size; a string also to the same
// bytes; bools and floats to themselves, so that 1, 1.0, "1" and true all
// differ; tables and lists by what they hold. A time is equal to nothing, as in
// RabbitMQ 4; one inside a table or list is.
//
// # From exchange to exchange
//
// A message goes on along bindings to other exchanges, with the keys and
// headers it came with, and visits each exchange once, so that cycles are
// harmless. Where none of an exchange's own bindings match, it goes to the
// exchange's alternate, if that exists; a binding that matches and leads nowhere
// counts as a match.
//
// # Pictures
//
// Topology.Mermaid and Topology.DOT draw a topology for Markdown and Graphviz;
// Compare says how two differ.
//
// # Tables
//
// A Table is immutable and safe for concurrent use; Apply makes the next one
// and shares nearly all memory with it. Changes to topic bindings are kept
// beside the compiled bulk until they are a sixteenth of it, and then compiled
// in, so that one Apply in many takes time proportional to the table: about a
// second for a million bindings.
package routing
