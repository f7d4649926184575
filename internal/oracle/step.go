package oracle

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/polymq/polymq"
)

// A Step is what came of one operation.
type Step struct {
	// Skipped: there was nothing to do it to.
	Skipped bool
	// Errs are the classes of what failed, "" where nothing did: one, or one for
	// each message published or settled.
	Errs      []string
	N         int // messages purged
	Info      polymq.QueueInfo
	Delivered []Delivered
	// Rest is what the queues held before the operation, which waited for what
	// was under way; nil where it had not to.
	Rest []State
	// Before says of each delivered message that its queue has handed it out
	// before.
	Before []bool
	// Settled names the messages that were settled.
	Settled []string
	// After is what the queues held once nothing moved; nil where that was not
	// looked at.
	After []State

	text string // all of it, without the names of the run
}

// State is what stood in one queue.
type State struct {
	Queue            string
	Absent           bool
	Ready, Consumers int
}

func (s State) String() string {
	if s.Absent {
		return s.Queue + " is gone"
	}
	return fmt.Sprintf("%s has %d ready, %d consumers", s.Queue, s.Ready, s.Consumers)
}

// describe is all of a step that two runs of a script share.
func (s Step) describe() string {
	if s.Skipped {
		return "skipped"
	}
	var b strings.Builder
	for _, r := range s.Rest {
		fmt.Fprintf(&b, "\n\tbefore it %s", r)
	}
	fmt.Fprintf(&b, "%q n=%d %+v", s.Errs, s.N, s.Info)
	for _, d := range s.Delivered {
		fmt.Fprintf(&b, "\n\t%s", d)
	}
	fmt.Fprintf(&b, " settled %q", s.Settled)
	for _, a := range s.After {
		fmt.Fprintf(&b, "\n\t%s", a)
	}
	return b.String()
}

// identity tells a message from others that its queue delivers: a queue gets
// one message twice where it died in two others.
func (d Delivered) identity() string {
	id := d.Message.ID
	for _, death := range deathsOf(d.Message.Header) {
		id += fmt.Sprintf(" dead in %v %v (%v)", death["queue"], death["reason"], death["count"])
	}
	return id
}

// diedIn is the queue that the message died in last; "" for none.
func (d Delivered) diedIn() string {
	if deaths := deathsOf(d.Message.Header); len(deaths) > 0 {
		return fmt.Sprint(deaths[0]["queue"])
	}
	return ""
}

// diedByItself reports whether its queue gave it up, not a subscriber.
func (d Delivered) diedByItself() bool {
	deaths := deathsOf(d.Message.Header)
	return len(deaths) > 0 && deaths[0]["reason"] != "rejected"
}

// history is where the message died, newest first.
func (d Delivered) history() (queues string) {
	for _, death := range deathsOf(d.Message.Header) {
		queues += fmt.Sprint(death["queue"], " ")
	}
	return queues
}

func deathsOf(h polymq.Header) (deaths []map[string]any) {
	list, _ := h["x-death"].([]any)
	for _, v := range list {
		if t, ok := v.(map[string]any); ok {
			deaths = append(deaths, t)
		}
	}
	return deaths
}

func (d Delivered) String() string {
	var b strings.Builder
	for _, f := range d.fields() {
		if f.text != "" {
			fmt.Fprintf(&b, "%s=%s ", f.name, f.text)
		}
	}
	return strings.TrimSpace(b.String())
}

type part struct{ name, text string }

// fields are all that is compared of a delivery, as text.
func (d Delivered) fields() []part {
	m := d.Message
	at := ""
	if !m.Time.IsZero() {
		at = m.Time.UTC().Format(time.RFC3339Nano)
	}
	flag := func(b bool) string {
		if b {
			return "true"
		}
		return ""
	}
	number := func(n int64) string {
		if n == 0 {
			return ""
		}
		return fmt.Sprint(n)
	}
	return []part{
		{"ID", m.ID}, {"Key", m.Key}, {"Exchange", d.Exchange}, {"Queue", d.Queue}, {"Redelivered", flag(d.Redelivered)},
		{"Attempt", number(int64(d.Attempt))}, {"Body", string(m.Body)}, {"Header", headerText(m.Header)},
		{"ContentType", m.ContentType}, {"ContentEncoding", m.ContentEncoding}, {"CorrelationID", m.CorrelationID},
		{"ReplyTo", m.ReplyTo}, {"Type", m.Type}, {"AppID", m.AppID}, {"UserID", m.UserID}, {"Time", at},
		{"Priority", number(int64(m.Priority))}, {"TTL", number(int64(m.TTL / time.Millisecond))},
		{"Delay", number(int64(m.Delay / time.Millisecond))}, {"Transient", flag(m.Transient)},
	}
}

// headerText is a header in one order, without the times of deaths.
func headerText(h polymq.Header) string {
	if len(h) == 0 {
		return ""
	}
	return valueText(map[string]any(h), true)
}

func valueText(v any, top bool) string {
	switch v := v.(type) {
	case map[string]any:
		var b bytes.Buffer
		b.WriteByte('{')
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if top && k == "x-death" {
				fmt.Fprintf(&b, "%s:%s ", k, deathText(v[k]))
			} else {
				fmt.Fprintf(&b, "%s:%s ", k, valueText(v[k], false))
			}
		}
		return strings.TrimSpace(b.String()) + "}"
	case []any:
		var parts []string
		for _, e := range v {
			parts = append(parts, valueText(e, false))
		}
		return "[" + strings.Join(parts, " ") + "]"
	case time.Time:
		return "time(" + v.Format(time.RFC3339Nano) + ")"
	}
	return fmt.Sprintf("%T(%v)", v, v)
}

// deathText is x-death with the time of each as nothing but its presence.
func deathText(v any) string {
	list, ok := v.([]any)
	if !ok {
		return valueText(v, false)
	}
	var parts []string
	for _, e := range list {
		t, ok := e.(map[string]any)
		if !ok {
			parts = append(parts, valueText(e, false))
			continue
		}
		t = maps.Clone(t)
		if at, ok := t["time"].(time.Time); ok && time.Since(at).Abs() < time.Hour {
			t["time"] = "about now"
		}
		parts = append(parts, valueText(t, false))
	}
	return "[" + strings.Join(parts, " ") + "]"
}
