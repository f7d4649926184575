// Package acceptance holds tests of the whole library on real brokers that take
// more than one process, a broker that dies, or input from outside: what
// package conformance, which runs through the public API of one process on any
// backend, cannot show. It has no code but its tests.
package acceptance
