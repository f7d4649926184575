// Package faulty wraps a driver to test the conformance suite: as it is, with
// links that can be paused and killed, it keeps every promise; with a Fault it
// breaks one.
package faulty
