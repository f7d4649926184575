package amqp

import (
	"errors"
	"fmt"
	"math"

	"github.com/polymq/polymq/driver"
)

// What amqp091 reads; it writes more, and a message that it does not read ends
// the connection of each of its consumers.
const (
	maxElements = 8192 // of a table or list
	maxNesting  = 32   // of tables and lists within the header
)

// What is left to others: to the driver, for a delayed copy, and to the broker,
// for deaths and deliveries.
const (
	ownHeaders    = 48
	brokerHeaders = 16
)

// headerRoom is what a message's properties may take, since they travel in one
// frame, and what does not fit ends the connection. The rest of the frame is
// left to what the driver and the broker add. frame 0 is a broker without a
// limit.
func headerRoom(frame int, own bool) int {
	if frame <= 0 {
		frame = frameSize
	}
	margin := min(frame/4, 4096)
	if own {
		margin /= 2
	}
	return frame - margin
}

// unfit says why a broker with frames of so many bytes could not carry a
// message at all; nil when it can. own says that the header is the driver's.
func unfit(m *driver.Message, id string, frame int, own bool) error {
	size, most := 0, maxElements-brokerHeaders
	if !own {
		most -= ownHeaders
	}
	for _, s := range [...]struct{ name, value string }{
		{"ID", id}, {"key", m.Key}, {"content type", m.ContentType}, {"content encoding", m.ContentEncoding},
		{"correlation ID", m.CorrelationID}, {"reply-to", m.ReplyTo}, {"type", m.Type}, {"app ID", m.AppID}, {"user ID", m.UserID},
	} {
		if len(s.value) > maxShort {
			return fmt.Errorf("%w: the %s has %d bytes: AMQP takes %d", driver.ErrTooLarge, s.name, len(s.value), maxShort)
		}
		size += len(s.value)
	}
	if len(m.Header) == 0 && size <= headerRoom(minFrame, false) {
		return nil
	}
	if len(m.Header) > most {
		return fmt.Errorf("%w: %d headers: AMQP clients take %d", driver.ErrTooLarge, len(m.Header), most)
	}
	for k, v := range m.Header {
		if len(escape(k)) > maxShort {
			return fmt.Errorf("%w: the name of header %q has, as it is sent, %d bytes: AMQP takes %d", driver.ErrTooLarge, k, len(escape(k)), maxShort)
		}
		n, err := fieldSize(v, 1)
		if err != nil {
			return fmt.Errorf("header %q: %w", k, err)
		}
		size += 1 + len(escape(k)) + n
	}
	if room := headerRoom(frame, own); size > room {
		return fmt.Errorf("%w: header and properties have %d bytes: this broker takes %d, since they travel in one frame", driver.ErrTooLarge, size, room)
	}
	return nil
}

const (
	maxShort = 255 // bytes of AMQP's short string
	minFrame = 4096
)

// fieldSize is how many bytes a value of a header takes at most. depth is that
// of a table or list that stands in its place.
func fieldSize(v any, depth int) (int, error) {
	switch v := v.(type) {
	case string:
		return 5 + len(v), nil
	case []byte:
		return 5 + len(v), nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return 0, fmt.Errorf("%w: RabbitMQ does not take the number %v: send its text", errors.ErrUnsupported, v)
		}
	case map[string]any:
		if err := containerFits(len(v), depth); err != nil {
			return 0, err
		}
		size := 5
		for k, e := range v {
			n, err := fieldSize(e, depth+1)
			if err != nil {
				return 0, err
			}
			size += 1 + len(k) + n
		}
		return size, nil
	case []any:
		if err := containerFits(len(v), depth); err != nil {
			return 0, err
		}
		size := 5
		for _, e := range v {
			n, err := fieldSize(e, depth+1)
			if err != nil {
				return 0, err
			}
			size += n
		}
		return size, nil
	}
	return 9, nil
}

func containerFits(elements, depth int) error {
	if elements > maxElements {
		return fmt.Errorf("%w: a table or list of %d: AMQP clients take %d", driver.ErrTooLarge, elements, maxElements)
	}
	if depth > maxNesting {
		return fmt.Errorf("%w: nested deeper than %d: AMQP clients do not read it", driver.ErrTooLarge, maxNesting)
	}
	return nil
}
