// Package oracle compares polymq with RabbitMQ.
//
// It makes random topologies and random scripts of operations, runs each
// script on a real RabbitMQ through the raw client, and then on every driver
// through the public API, and compares what each operation answered, what each
// queue delivered, in order, and what every queue held after each step. What
// RabbitMQ does is right; what the library itself adds (attempts, delays) is
// compared with the amqp driver.
//
// A script acts from one program at a time and comes to rest after each
// operation, so that its outcome is determined. The reference run records it:
// what was delivered, and what stood in the queues once nothing moved any more.
// The other runs are led by that record: they wait until they have as much,
// however slow the machine is, and a difference is what does not come about
// within their patience. Times to live are far shorter than the pauses that the
// player makes for them, or far longer than a script.
//
// What RabbitMQ itself does differently from version to version, or what no
// promise covers, is in one table, Known, with the reason; every run prints how
// often each entry applied.
//
// A script that shows a difference is made smaller, and printed as a Go test.
package oracle
