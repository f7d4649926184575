// Package amqp carries polymq on RabbitMQ 3.10 and newer, through AMQP 0-9-1.
//
// Importing it registers the schemes amqp and amqps.
package amqp
