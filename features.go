package polymq

import "github.com/polymq/polymq/driver"

// Features is what a backend declares: it does what it declares and refuses
// the rest.
type Features = driver.Features

// Feature names something that a backend has or refuses.
type Feature = driver.Feature

// The features.
const (
	FeatureRouting              = driver.Routing
	FeatureUnroutable           = driver.Unroutable
	FeatureConfirms             = driver.Confirms
	FeatureDedup                = driver.Dedup
	FeatureAttempts             = driver.Attempts
	FeatureMaxAttempts          = driver.MaxAttempts
	FeatureDeadLetter           = driver.DeadLetter
	FeatureDelayedNack          = driver.DelayedNack
	FeatureDelay                = driver.Delay
	FeatureTTL                  = driver.TTL
	FeatureQueueExpiry          = driver.Expires
	FeatureMaxLength            = driver.MaxLength
	FeaturePriority             = driver.Priority
	FeatureSingleActiveConsumer = driver.SingleActive
	FeatureExclusive            = driver.Exclusive
	FeatureAutoDelete           = driver.AutoDelete
	FeatureTopology             = driver.ReadBack
	FeatureInspect              = driver.Inspect
	FeaturePurge                = driver.Purge
)

// Support says how a backend has a feature.
type Support = driver.Support

// The kinds of support.
const (
	SupportNative   = driver.Native
	SupportEmulated = driver.Emulated
	SupportRefused  = driver.Refused
)
