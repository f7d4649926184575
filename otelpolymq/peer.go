package otelpolymq

import (
	"net"
	"strconv"
	"strings"

	"github.com/polymq/polymq"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// peer is the attributes that all spans and metrics of a connection have.
type peer []attribute.KeyValue

func peerOf(info polymq.ConnInfo) peer {
	system := systemOfScheme(info.Scheme)
	if info.Scheme == "" {
		system = systemOfBackend(info.Backend)
	}
	p := peer{semconv.MessagingSystemKey.String(system)}
	if len(info.Hosts) != 1 || info.Hosts[0] == "" || system == memory {
		return p
	}
	host, port, err := net.SplitHostPort(info.Hosts[0])
	if err != nil {
		return append(p, semconv.ServerAddress(strings.Trim(info.Hosts[0], "[]")))
	}
	p = append(p, semconv.ServerAddress(host))
	if n, err := strconv.Atoi(port); err == nil {
		p = append(p, semconv.ServerPort(n))
	}
	return p
}

const memory = "memory"

func systemOfScheme(scheme string) string {
	base, _, _ := strings.Cut(strings.TrimPrefix(scheme, "tls+"), "+")
	switch base {
	case "amqp", "amqps":
		return semconv.MessagingSystemRabbitMQ.Value.AsString()
	case "redis", "rediss", "valkey", "valkeys":
		return "redis"
	case "mem":
		return memory
	}
	return base
}

// systemOfBackend goes by the name that Features.Backend begins with.
func systemOfBackend(backend string) string {
	name, _, _ := strings.Cut(strings.ToLower(backend), " ")
	switch name {
	case "valkey":
		return "redis"
	case "":
		return "polymq"
	}
	return name
}

// exchangeName is the exchange as the conventions want it.
func exchangeName(exchange string) string {
	if exchange == "" {
		return "amq.default"
	}
	return exchange
}

// queueName is the queue where it is one of a few, or says that it is temporary.
func queueName(queue string) string {
	if temporary(queue) {
		return "(temporary)"
	}
	return queue
}

// temporary reports whether SubscribeTemporary, or RabbitMQ itself, has given
// the queue its name.
func temporary(queue string) bool {
	return strings.HasPrefix(queue, "polymq.gen-") || strings.HasPrefix(queue, "amq.gen-")
}

// destination joins what is not empty, and a queue only where the key does not
// name it already.
func destination(exchange, key, queue string) string {
	if queue == key {
		queue = ""
	}
	parts := make([]string, 0, 3)
	for _, s := range [...]string{exchange, key, queue} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if len(parts) == 0 {
		return exchangeName("")
	}
	return strings.Join(parts, ":")
}
