package nats

import (
	"strings"
	"sync"

	natsgo "github.com/nats-io/nats.go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// headerPrefix begins the names of the headers that hold properties.
const headerPrefix = "Polymq-"

// headerMsgID is the server's own header to deduplicate by, and the message's
// id unless a header Polymq-id says otherwise.
const headerMsgID = "Nats-Msg-Id"

// writer builds the headers of one message after another without allocating
// but for names that it has not met. It is not safe for concurrent use.
type writer struct {
	fields []emulate.Field
	values []string
	names  map[string]string // field name to header name
	msg    natsgo.Msg
	size   int // of the headers of msg, as they are sent
}

// headerExtra is what a header takes beside its name and value.
const headerExtra = len(": \r\n")

// maxNames bounds the names that a writer remembers.
const maxNames = 256

var writers = sync.Pool{New: func() any {
	return &writer{names: map[string]string{}, msg: natsgo.Msg{Header: natsgo.Header{}}}
}}

// write makes the message of a parcel, without subject and reply. It is valid
// until the next call.
func (w *writer) write(p *emulate.Parcel) *natsgo.Msg {
	id := p.Publishing.ID
	if id == p.DedupID {
		id = ""
	}
	w.fields = emulate.AppendFields(w.fields[:0], p.Publishing.Message, id, p.Exchange)
	clear(w.msg.Header)
	if need := len(w.fields) + 1; cap(w.values) < need {
		w.values = make([]string, 0, 2*need)
	}
	w.values = append(w.values[:0], escape(p.DedupID, valueSafe))
	w.msg.Header[headerMsgID] = w.values[0:1:1]
	w.size = len("NATS/1.0\r\n\r\n") + len(headerMsgID) + len(w.values[0]) + headerExtra
	for _, f := range w.fields {
		n := len(w.values)
		w.values = append(w.values, escape(f.Value, valueSafe))
		name := w.name(f.Name)
		w.size += len(name) + len(w.values[n]) + headerExtra
		w.msg.Header[name] = w.values[n : n+1 : n+1]
	}
	w.msg.Data = p.Publishing.Message.Body
	return &w.msg
}

func (w *writer) name(field string) string {
	if name, ok := w.names[field]; ok {
		return name
	}
	if len(w.names) >= maxNames {
		clear(w.names)
	}
	name := headerPrefix + escape(field, nameSafe)
	w.names[strings.Clone(field)] = name
	return name
}

// release gives the writer back without what it holds of messages.
func (w *writer) release() {
	clear(w.fields[:cap(w.fields)])
	clear(w.values[:cap(w.values)])
	clear(w.msg.Header)
	w.msg.Data, w.msg.Subject, w.msg.Reply = nil, "", ""
	writers.Put(w)
}

// read puts a received message into d. What cannot be read is left out, and
// the first reason returned; the rest of the message is there all the same.
// Headers that are neither ours nor the server's are string headers of a
// program that knows nothing of polymq.
func read(d *driver.Delivery, m *natsgo.Msg) error {
	var first error
	d.Message.Body = m.Data
	for header, values := range m.Header {
		value := values[len(values)-1]
		field, ours := strings.CutPrefix(header, headerPrefix)
		if !ours {
			if strings.HasPrefix(header, "Nats-") {
				continue
			}
			if d.Message.Header == nil {
				d.Message.Header = map[string]any{}
			}
			d.Message.Header[header] = foreign(values)
			continue
		}
		if err := emulate.SetField(d, unescape(field), unescape(value)); err != nil && first == nil {
			first = err
		}
	}
	if d.Message.ID == "" {
		d.Message.ID = unescape(m.Header.Get(headerMsgID))
	}
	return first
}

// foreign is the value of a header that polymq did not write.
func foreign(values []string) any {
	if len(values) == 1 {
		return values[0]
	}
	list := make([]any, len(values))
	for i, v := range values {
		list[i] = v
	}
	return list
}

// nameSafe and valueSafe say which bytes stand for themselves in a header's
// name and value; the others, and the percent sign, become % and two
// hexadecimal digits. Names are HTTP's tokens, which clients insist on. Values
// keep their inner spaces.
func nameSafe(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$&'*+-.^_`|~", c) >= 0
}

func valueSafe(c byte) bool { return ' ' <= c && c <= '~' && c != '%' }

func escape(s string, safe func(byte) bool) string {
	i := 0
	for i < len(s) && safe(s[i]) {
		i++
	}
	if i == len(s) && (s == "" || s[0] != ' ' && s[len(s)-1] != ' ') {
		return s
	}
	b := make([]byte, 0, len(s)+16)
	for i := range len(s) {
		c := s[i]
		if safe(c) && (c != ' ' || i > 0 && i < len(s)-1) {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(b)
}

// unescape undoes escape; a percent sign that begins no escape stands for
// itself.
func unescape(s string) string {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s
	}
	b := append(make([]byte, 0, len(s)), s[:i]...)
	for ; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi < 16 && lo < 16 {
				b = append(b, hi<<4|lo)
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}
