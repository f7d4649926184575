// Package middleware holds middleware for handlers, to be listed in
// polymq.SubscriberOptions.Middleware or given to polymq.Chain, and for
// publishers, to be listed in polymq.PublisherOptions.Middleware. The first in a
// list is the outermost: it sees a delivery first and its outcome last.
//
// A usual order for handlers, with what each relies on:
//
//	Log          sees what came of it all
//	Correlate    before whatever publishes or logs with the ctx
//	DeadLetter   outside Recover, to write the stack of a panic, outside
//	             Decompress, so that a dead letter is the message as it came, and
//	             outside Deduplicate, for which it would be handled, and dropped
//	             when it is redriven
//	Recover      a panic of all that follows is an error to all before
//	Deduplicate  outside Retry, so that a message is claimed once
//	Throttle     here a message counts once; behind Retry each try does
//	Retry        each attempt has its own Timeout
//	Timeout
//	Decompress   next to the handler
//
// And for publishers: CorrelatePublish, Compress, ThrottlePublish, so that what
// cannot be compressed takes nothing of the rate.
//
// Order by key is polymq.SubscriberOptions.OrderBy: a middleware is called by
// several goroutines and cannot know which delivery arrived first. Under it, Retry
// keeps a key's order over failures, since the message stays in its place.
package middleware
