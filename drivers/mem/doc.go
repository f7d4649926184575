// Package mem is a broker inside the process: the reference of polymq's
// semantics, for tests and for programs that need no other.
//
//	mem://name?vhost=staging
//
// Connections with the same name share a broker, within one process; mem:// is
// the broker whose name is empty. What a broker holds stays when its last
// connection closes, until the process ends or [Remove] is called.
//
// Options of the URL:
//
//	vhost   the namespace; default "default"
//
// An ID that the application gave is remembered for 20 seconds, by each queue,
// for less where a queue gets more than 100,000 such messages a second. One
// that the library made is not: no outcome is ever unknown here, so that
// nothing need be published again under it.
//
// Limits, priorities and the single active consumer are exact: whatever was
// published, given back or settled before a call began is counted in it. A
// message expires to the millisecond for who would receive it, and becomes a
// dead letter some milliseconds later.
//
// A subscriber adds two goroutines (one of them driver/emulate's); a connection
// has two, and others of driver/emulate's where it looks after what queues do
// by themselves: one, two where messages were delayed, one while exclusive
// queues are made anew. A publisher or message has none. A body is copied when
// it is published and when it is delivered, so nobody sees what others do with
// their slices.
package mem
