// Package middleware holds middleware for polymq.Subscriber.Run.
package middleware
