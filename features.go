package polymq

import "github.com/polymq/polymq/driver"

// Features is what a backend declares: it does what it declares and refuses
// the rest.
type Features = driver.Features

// Feature names something that a backend has or refuses.
type Feature = driver.Feature

// The features.
const (
	FeatureRouting              = driver.Routing      // exchanges, bindings, the default exchange
	FeatureUnroutable           = driver.Unroutable   // a message that no queue takes is heard of
	FeatureConfirms             = driver.Confirms     // Publish returns when the queues have the message
	FeatureDedup                = driver.Dedup        // a second publish of one ID within Features.DedupWindow leaves no second copy
	FeatureAttempts             = driver.Attempts     // Delivery.Attempt counts
	FeatureMaxAttempts          = driver.MaxAttempts  // Queue.MaxAttempts
	FeatureDeadLetter           = driver.DeadLetter   // Queue.DeadLetterExchange
	FeatureDelayedNack          = driver.DelayedNack  // Nack with a delay
	FeatureDelay                = driver.Delay        // Message.Delay and Message.At
	FeatureTTL                  = driver.TTL          // Message.TTL and Queue.TTL
	FeatureQueueExpiry          = driver.Expires      // Queue.Expires
	FeatureMaxLength            = driver.MaxLength    // Queue.MaxLength and Queue.MaxBytes, with either Overflow
	FeaturePriority             = driver.Priority     // Queue.MaxPriority
	FeatureSingleActiveConsumer = driver.SingleActive // Queue.SingleActiveConsumer
	FeatureExclusive            = driver.Exclusive    // Queue.Exclusive
	FeatureAutoDelete           = driver.AutoDelete   // Queue.AutoDelete
	FeatureTopology             = driver.ReadBack     // Conn.Topology and Conn.Plan
	FeatureInspect              = driver.Inspect      // Conn.Inspect
	FeaturePurge                = driver.Purge        // Conn.Purge
)

// Support says how a backend has a feature.
type Support = driver.Support

// The kinds of support.
const (
	SupportNative   = driver.Native   // the broker does it
	SupportEmulated = driver.Emulated // polymq does it, with the same effect
	SupportRefused  = driver.Refused  // asked for, it is errors.ErrUnsupported
)
