// Package rabbitmq translates between the arguments of RabbitMQ's queues and
// the fields of routing.Queue. The driver speaks to a broker with it, and
// package definitions reads and writes files.
package rabbitmq

import "github.com/polymq/polymq/routing"

// RabbitMQ's arguments that stand for fields.
const (
	ArgQueueType          = "x-queue-type"
	ArgDeadLetterExchange = "x-dead-letter-exchange"
	ArgDeadLetterKey      = "x-dead-letter-routing-key"
	ArgDeadLetterStrategy = "x-dead-letter-strategy"
	ArgOverflow           = "x-overflow"
	ArgDeliveryLimit      = "x-delivery-limit"
	ArgTTL                = "x-message-ttl"
	ArgExpires            = "x-expires"
	ArgMaxLength          = "x-max-length"
	ArgMaxBytes           = "x-max-length-bytes"
	ArgMaxPriority        = "x-max-priority"
	ArgSingleActive       = "x-single-active-consumer"
	ArgAlternate          = "alternate-exchange"

	RejectPublish = "reject-publish"
	AtLeastOnce   = "at-least-once"
)

// ExchangeName undoes what stands for the default exchange where "" means none;
// FieldName does it.
func ExchangeName(name string) string {
	if name == routing.DefaultExchange {
		return ""
	}
	return name
}

// FieldName is an exchange in a field where "" means none.
func FieldName(exchange string) string {
	if exchange == "" {
		return routing.DefaultExchange
	}
	return exchange
}
