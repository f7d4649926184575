// Package middleware holds middleware for handlers, to be listed in
// polymq.SubscriberOptions.Middleware or given to polymq.Chain. The first in a
// list is the outermost: it sees a delivery first and its outcome last. A
// usual order is Log, Recover, Retry, Timeout: each attempt of Retry has its
// own time, a panic ends the attempts, and Log sees what came of it all.
package middleware
