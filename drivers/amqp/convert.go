package amqp

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
)

// The driver's own headers; they never reach the application.
const (
	// headerReturn tells two publishes in flight apart that carry one ID.
	headerReturn = "polymq-return"
	// headerDeath keeps an x-death that was published, or that a message had
	// when it was delayed: the broker would take it for its own.
	headerDeath = "polymq-death"
	// What a delayed copy was before.
	headerQueue    = "polymq-queue"
	headerExchange = "polymq-exchange"
	headerAttempts = "polymq-attempts"
	headerUser     = "polymq-user"
	headerFirst    = "polymq-first-death"
	headerLast     = "polymq-last-death"

	headerDelivered = "x-delivery-count"
	headerAcquired  = "x-acquired-count"
	headerXDeath    = "x-death"
	prefixFirst     = "x-first-death-"
	prefixLast      = "x-last-death-"
)

// publishingOf is m as amqp091 sends it.
func publishingOf(m *driver.Message, id string) amqp091.Publishing {
	p := amqp091.Publishing{
		Headers:         tableOf(m.Header),
		ContentType:     m.ContentType,
		ContentEncoding: m.ContentEncoding,
		DeliveryMode:    amqp091.Persistent,
		Priority:        m.Priority,
		CorrelationId:   m.CorrelationID,
		ReplyTo:         m.ReplyTo,
		MessageId:       id,
		Timestamp:       m.Time,
		Type:            m.Type,
		UserId:          m.UserID,
		AppId:           m.AppID,
		Body:            m.Body,
	}
	if m.Transient {
		p.DeliveryMode = amqp091.Transient
	}
	return p
}

// tableOf is a header as amqp091 sends it: the same map where it can be.
func tableOf(header map[string]any) amqp091.Table {
	if len(header) == 0 {
		return nil
	}
	_, rename := header[headerXDeath]
	for _, v := range header {
		switch v.(type) {
		case map[string]any, []any:
			rename = true
		}
	}
	if !rename {
		return header
	}
	t := make(amqp091.Table, len(header)+1)
	for k, v := range header {
		if k == headerXDeath {
			k = headerDeath
		}
		t[k] = fieldOf(v)
	}
	return t
}

func fieldOf(v any) any {
	switch v := v.(type) {
	case map[string]any:
		t := make(amqp091.Table, len(v))
		for k, e := range v {
			t[k] = fieldOf(e)
		}
		return t
	case []any:
		l := make([]any, len(v))
		for i, e := range v {
			l[i] = fieldOf(e)
		}
		return l
	}
	return v
}

// headerRoom is what a message's properties may take: they travel in one
// frame, and what does not fit ends the connection.
const headerRoom = 131072 - 4096

// unfit says why the broker could not carry a message at all; nil when it can.
func unfit(m *driver.Message, id string) error {
	for _, s := range [...]struct{ name, value string }{
		{"ID", id}, {"key", m.Key}, {"content type", m.ContentType}, {"content encoding", m.ContentEncoding},
		{"correlation ID", m.CorrelationID}, {"reply-to", m.ReplyTo}, {"type", m.Type}, {"app ID", m.AppID}, {"user ID", m.UserID},
	} {
		if len(s.value) > 255 {
			return fmt.Errorf("%w: the %s has %d bytes: AMQP takes 255", driver.ErrTooLarge, s.name, len(s.value))
		}
	}
	if len(m.Header) > 0 {
		if n := fieldSize(map[string]any(m.Header)); n > headerRoom {
			return fmt.Errorf("%w: the header has %d bytes: AMQP takes %d, since it travels in one frame", driver.ErrTooLarge, n, headerRoom)
		}
	}
	return nil
}

func fieldSize(v any) int {
	switch v := v.(type) {
	case string:
		return 5 + len(v)
	case []byte:
		return 5 + len(v)
	case map[string]any:
		n := 5
		for k, e := range v {
			n += 1 + len(k) + fieldSize(e)
		}
		return n
	case []any:
		n := 5
		for _, e := range v {
			n += fieldSize(e)
		}
		return n
	}
	return 9
}

// message fills m from a delivery whose header table nobody else has.
func message(m *driver.Message, d *amqp091.Delivery) {
	m.ID = d.MessageId
	m.Key = d.RoutingKey
	m.Header = headerOf(d.Headers)
	m.Body = d.Body
	m.ContentType = d.ContentType
	m.ContentEncoding = d.ContentEncoding
	m.CorrelationID = d.CorrelationId
	m.ReplyTo = d.ReplyTo
	m.Type = d.Type
	m.AppID = d.AppId
	m.UserID = d.UserId
	m.Priority = d.Priority
	m.Transient = d.DeliveryMode != amqp091.Persistent
	if !d.Timestamp.IsZero() {
		m.Time = d.Timestamp.UTC()
	}
	if d.Expiration != "" {
		if ms, err := strconv.ParseInt(d.Expiration, 10, 64); err == nil && ms >= 0 && ms <= int64(1<<63-1)/int64(time.Millisecond) {
			m.TTL = time.Duration(ms) * time.Millisecond
		}
	}
}

// headerOf normalises a table in place; nil when it is empty.
func headerOf(t amqp091.Table) map[string]any {
	if len(t) == 0 {
		return nil
	}
	for k, v := range t {
		switch v.(type) {
		case string, bool, int64, float64, []byte, nil:
		default:
			t[k] = valueOf(v)
		}
	}
	return t
}

func valueOf(v any) any {
	switch v := v.(type) {
	case int8:
		return int64(v)
	case int16:
		return int64(v)
	case int32:
		return int64(v)
	case int:
		return int64(v)
	case uint8:
		return int64(v)
	case uint16:
		return int64(v)
	case uint32:
		return int64(v)
	case float32:
		return float64(v)
	case time.Time:
		return v.UTC()
	case amqp091.Decimal:
		return decimalText(v)
	case amqp091.Table:
		for k, e := range v {
			v[k] = valueOf(e)
		}
		return map[string]any(v)
	case []any:
		for i, e := range v {
			v[i] = valueOf(e)
		}
		return v
	}
	return v
}

// decimalText writes AMQP's decimal, an integer with a number of digits behind
// the point.
func decimalText(d amqp091.Decimal) string {
	digits := new(big.Int).Abs(big.NewInt(int64(d.Value))).String()
	if n := int(d.Scale) + 1 - len(digits); n > 0 {
		digits = strings.Repeat("0", n) + digits
	}
	if d.Scale > 0 {
		point := len(digits) - int(d.Scale)
		digits = digits[:point] + "." + digits[point:]
	}
	if d.Value < 0 {
		return "-" + digits
	}
	return digits
}
