// Package otelpolymq makes OpenTelemetry's traces and metrics of what a polymq
// connection does, by the semantic conventions for messaging (v1.43.0, which
// call themselves in development) and their extension for RabbitMQ, whose model
// polymq carries on every backend.
//
//	observer, err := otelpolymq.New(nil) // otel's global providers and propagator
//	conn, err := polymq.Open(ctx, url, &polymq.Options{Observers: []polymq.Observer{observer}})
//
// # Traces
//
//	publish {exchange}   send     PRODUCER; CLIENT where its context is not the messages'
//	create {exchange}    create   PRODUCER, one for each message of a Publish of several
//	receive {queue}      receive  CLIENT, for Receive, ReceiveBatch and Deliveries
//	process {queue}      process  CONSUMER, around a handler of Run and its middleware
//	ack|nack|reject {queue}  settle  CLIENT, for each settlement that was tried
//
// The default exchange is called amq.default, a temporary queue (temporary).
//
// Context travels in the message's headers as the propagator writes them,
// traceparent by default. It is put into a copy: Publish changes no message. A
// message that carries a context already, because the application put one there
// or passes on what it received, keeps it, and the publish span links to it.
//
// Every span of a consumer links to the contexts of its messages. A process span
// is also the child of its message's context, so that one trace leads from the
// publish to the handler, unless Run's ctx has a span of its own, whose child it
// is then. The handler's ctx has the process span and the message's baggage.
//
// Who calls Receive gets the context of a message with the propagator, since a
// header is a carrier:
//
//	ctx = otel.GetTextMapPropagator().Extract(ctx, d.Header)
//
// # Metrics
//
// By the conventions, durations in seconds:
//
//	messaging.client.sent.messages        published, with error.type where not confirmed
//	messaging.client.consumed.messages    delivered to the application
//	messaging.client.operation.duration   of publish, receive, ack, nack and reject
//	messaging.process.duration            of handlers
//
// Beyond them:
//
//	polymq.client.settled.messages        by messaging.operation.name: ack, nack, reject
//	polymq.client.redelivered.messages    delivered, and perhaps not for the first time
//	polymq.client.reconnects              of connections
//	polymq.producer.in_flight             sent and not yet confirmed
//	polymq.consumer.in_flight             delivered and not yet settled
//	polymq.message.time_in_queue          from Message.Time, where it is set, to its delivery
//	polymq.queue.messages                 by polymq.queue.message.state: ready, unsettled
//	polymq.queue.consumers                as the queue's next ones only by WatchQueues
//
// Time in a queue is by two clocks, to the second, and no shorter than 0.
//
// Metrics and names of spans carry the exchange of a publish or the queue of a
// consumer, as messaging.destination.template: keys can be too many. Spans have
// the key in messaging.rabbitmq.destination.routing_key and in
// messaging.destination.name, {exchange}:{key} or {exchange}:{key}:{queue}.
// messaging.system is rabbitmq, nats, redis (for Valkey, too) or memory, or the
// scheme of another driver. server.address and server.port are there where the
// URL names one host.
//
// # Errors
//
// error.type is closed, invalid, not_found, conflict, in_use, unroutable,
// rejected, too_large, undecodable, unconfirmed, no_reply, settled, lost,
// permission, unsupported, canceled or timeout for the errors of polymq and of
// contexts, _OTHER for a Publish whose messages failed for different reasons, and
// else, of a handler's error above all, what its method ErrorType returns or its
// Go type.
//
// The end of a consumer's ctx while it waits is no error and makes no span.
package otelpolymq
