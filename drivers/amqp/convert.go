package amqp

import (
	"math/big"
	"strconv"
	"strings"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
)

// The driver's own headers; they never reach the application, and those of the
// application that have such a name travel under another.
const (
	prefixOwn     = "polymq-"
	prefixEscaped = prefixOwn + "app-"

	// headerReturn tells two publishes in flight apart that carry one ID.
	headerReturn = "polymq-return"
	// headerDeath keeps an x-death that was published, or that a message had
	// when it was delayed: the broker would take it for its own.
	headerDeath = "polymq-death"
	// headerOwnCount and headerOwnAcquired keep a count that was published.
	headerOwnCount    = "polymq-delivery-count"
	headerOwnAcquired = "polymq-acquired-count"
	// What a delayed copy was before.
	headerQueue    = "polymq-queue"
	headerExchange = "polymq-exchange"
	headerAttempts = "polymq-attempts"
	headerUser     = "polymq-user"
	headerFirst    = "polymq-first-death"
	headerLast     = "polymq-last-death"
	// What a message under way to a mover was, and is to become.
	headerDue  = "polymq-due"
	headerBack = "polymq-back" // headerQueue
	headerTTL  = "polymq-ttl"  // in milliseconds
	headerBCC  = "polymq-bcc"
	// The priority of what must not have one in the levels and in dueQueue.
	headerPriority = "polymq-priority"
	headerRest     = "polymq-rest"  // units of its delay beyond the longest
	headerTry      = "polymq-tries" // to publish it, in vain

	headerDelivered = "x-delivery-count"
	headerAcquired  = "x-acquired-count"
	headerXDeath    = "x-death"
	headerCC        = "CC"
	prefixFirst     = "x-first-death-"
	prefixLast      = "x-last-death-"
)

// publishingOf is m as amqp091 sends it; own says that its header's names are
// the driver's already.
func publishingOf(m *driver.Message, id string, own bool) amqp091.Publishing {
	p := amqp091.Publishing{
		Headers:         tableOf(m.Header, own),
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
	if m.TTL > 0 {
		p.Expiration = strconv.FormatInt(int64((m.TTL+time.Millisecond-1)/time.Millisecond), 10)
	}
	return p
}

// tableOf is a header as amqp091 sends it: the same map where it can be.
func tableOf(header map[string]any, own bool) amqp091.Table {
	if len(header) == 0 {
		return nil
	}
	same := true
	for k, v := range header {
		switch v.(type) {
		case map[string]any, []any:
			same = false
		}
		if keptName(k) != k || !own && strings.HasPrefix(k, prefixOwn) {
			same = false
		}
	}
	if same {
		return header
	}
	t := make(amqp091.Table, len(header)+1)
	for k, v := range header {
		if !own {
			k = escape(k)
		}
		t[keptName(k)] = fieldOf(v)
	}
	return t
}

// keptName is where a header travels that would be taken for the broker's.
func keptName(header string) string {
	switch header {
	case headerXDeath:
		return headerDeath
	case headerDelivered:
		return headerOwnCount
	case headerAcquired:
		return headerOwnAcquired
	}
	return header
}

// escape is the name under which an application's header travels.
func escape(name string) string {
	if rest, ok := strings.CutPrefix(name, prefixOwn); ok {
		return prefixEscaped + rest
	}
	return name
}

// unescape gives an application's headers their names back.
func unescape(header map[string]any) {
	var escaped []string
	for k := range header {
		if strings.HasPrefix(k, prefixEscaped) {
			escaped = append(escaped, k)
		}
	}
	if escaped == nil {
		return
	}
	values := make([]any, len(escaped))
	for i, k := range escaped {
		values[i] = header[k]
		delete(header, k)
	}
	for i, k := range escaped {
		header[prefixOwn+k[len(prefixEscaped):]] = values[i]
	}
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
