package oracle

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/polymq/polymq/routing"
)

// operations and features are what a run must have had, each at least once.
var operations = []string{
	"declare", "bind", "unbind", "delete queue", "delete exchange", "publish", "purge", "inspect", "subscribe", "receive",
	Ack, Nack, Reject, "close", "disconnect", "wait", "await queue expiry",
}

var features = []string{
	"quorum queues", "classic queues", "durable", "transient queue", "transient exchange",
	"direct", "fanout", "topic", "headers", "amq.* exchange", "default exchange", "exchange to exchange", "alternate exchange",
	"CC", "BCC", "header string", "header []uint8", "header bool", "header int64", "header float64", "header time.Time", "header <nil>",
	"header map[string]interface {}", "header []interface {}", "properties", "user ID", "transient message", "batch", "drop unroutable",
	"unroutable", "rejected", "not found", "conflict", "in use", "delivered", "redelivered", "prefetch", "several connections",
	"message TTL", "queue TTL", "expired", "max length", "max bytes", "drop-head", "reject-publish", "maxlen",
	"priority", "dead-letter exchange", "dead-letter key", "dead-letter default exchange", "died in two queues", "died again",
	"cycle", "at-least-once dead letters", "rejected death", "max attempts", "delivery_limit", "attempt above 1",
	"single active consumer", "exclusive", "auto-delete", "queue expiry", "queue gone", "purged", "inspected",
	"deleted under a consumer", "delay", "delayed nack", "polymq.unroutable",
}

// count counts what occurred in a script that was played.
func count(t *tally, s Script, record []Step) (delivered int) {
	queues := map[string]routing.Queue{}
	subs := map[string]Subscribe{}
	for i, op := range s.Ops {
		step := record[i]
		if step.Skipped {
			continue
		}
		t.add(op.name(), 1)
		for _, e := range step.Errs {
			if e != "" {
				t.add(e, 1)
			}
		}
		for _, a := range step.After {
			if a.Absent {
				t.add("queue gone", 1)
			}
		}
		switch o := op.(type) {
		case Declare:
			countTopology(t, s, o.Topology, queues)
			countOn(t, o.On)
		case Bind:
			if o.Binding.ToExchange != "" {
				t.add("exchange to exchange", 1)
			}
			if strings.HasPrefix(o.Binding.Exchange, "amq.") {
				t.add("amq.* exchange", 1)
			}
		case Publish:
			countPublish(t, o)
			countOn(t, o.On)
		case Purge:
			t.add("purged", step.N)
		case Inspect:
			t.add("inspected", step.Info.Ready+step.Info.Unsettled+step.Info.Consumers)
		case Subscribe:
			subs[o.By] = o
			if o.Prefetch < whole {
				t.add("prefetch", 1)
			}
			if o.Queue == unroutable {
				t.add("polymq.unroutable", 1)
			}
		case Receive:
			delivered += len(step.Delivered)
			for _, e := range step.Errs {
				if e == "not found" {
					t.add("deleted under a consumer", 1)
				}
			}
			for _, d := range step.Delivered {
				countDelivered(t, d)
			}
		case Settle:
			if o.Delay > 0 {
				t.add("delayed nack", 1)
			}
		case AwaitGone:
			if step.N == 0 {
				t.add("queue expiry", 1)
			}
		}
	}
	t.add("delivered", delivered)
	return delivered
}

func countOn(t *tally, on int) {
	if on > 0 {
		t.add("several connections", 1)
	}
}

func countTopology(t *tally, s Script, topology routing.Topology, queues map[string]routing.Queue) {
	is := func(name string, b bool) {
		if b {
			t.add(name, 1)
		}
	}
	for _, x := range topology.Exchanges {
		t.add(string(x.Kind), 1)
		is("alternate exchange", x.Alternate != "")
		is("transient exchange", x.Transient)
	}
	for _, q := range topology.Queues {
		queues[q.Name] = q
		quorum := isQuorum(q, s.Classic)
		is("classic queues", !quorum)
		is("quorum queues", quorum)
		is("durable", !q.Transient)
		is("transient queue", q.Transient)
		is("queue TTL", q.TTL > 0 && q.TTL < time.Hour)
		is("max length", q.MaxLength > 0)
		is("max bytes", q.MaxBytes > 0)
		is("drop-head", q.MaxLength+int(q.MaxBytes) > 0 && !q.Rejects())
		is("reject-publish", q.Rejects())
		is("priority", q.MaxPriority > 0)
		is("dead-letter exchange", q.DeadLetterExchange != "")
		is("dead-letter default exchange", q.DeadLetterExchange == routing.DefaultExchange)
		is("dead-letter key", q.DeadLetterKey != "")
		is("at-least-once dead letters", q.DeadLetterExchange != "" && !q.BestEffortDeadLetter)
		is("cycle", q.DeadLetterExchange == routing.DefaultExchange && queues[q.DeadLetterKey].DeadLetterKey == q.Name)
		is("max attempts", q.MaxAttempts > 0)
		is("single active consumer", q.SingleActiveConsumer)
		is("exclusive", q.Exclusive)
		is("auto-delete", q.AutoDelete)
	}
}

func countPublish(t *tally, p Publish) {
	if p.Exchange == "" {
		t.add("default exchange", 1)
	}
	if len(p.Messages) > 1 {
		t.add("batch", 1)
	}
	if p.Drop {
		t.add("drop unroutable", 1)
	}
	if p.AsUser {
		t.add("user ID", 1)
	}
	for _, m := range p.Messages {
		for name, v := range m.Header {
			if name == "CC" || name == "BCC" {
				t.add(name, 1)
				continue
			}
			t.add(fmt.Sprintf("header %T", v), 1)
		}
		if m.ContentType != "" || m.CorrelationID != "" || !m.Time.IsZero() {
			t.add("properties", 1)
		}
		if m.Transient {
			t.add("transient message", 1)
		}
		if m.TTL > 0 && m.TTL < time.Hour {
			t.add("message TTL", 1)
		}
		if m.Delay > 0 {
			t.add("delay", 1)
		}
	}
}

func countDelivered(t *tally, d Delivered) {
	if d.Redelivered {
		t.add("redelivered", 1)
	}
	if d.Attempt > 1 {
		t.add("attempt above 1", 1)
	}
	deaths := deathsOf(d.Message.Header)
	for _, death := range deaths {
		switch reason, _ := death["reason"].(string); reason {
		case "rejected":
			t.add("rejected death", 1)
		default:
			t.add(reason, 1)
		}
		if n, _ := death["count"].(int64); n > 1 {
			t.add("died again", 1)
		}
	}
	if len(deaths) > 1 {
		t.add("died in two queues", 1)
	}
}

// missing are the operations and features that did not occur.
func missing(t *tally) (names []string) {
	for _, name := range append(append([]string(nil), operations...), features...) {
		if t.of(name) == 0 {
			names = append(names, name)
		}
	}
	return names
}

func printCounts(w io.Writer, t *tally) {
	for _, list := range []struct {
		title string
		names []string
	}{{"operations", operations}, {"features", features}} {
		fmt.Fprintf(w, "%s:\n", list.title)
		for _, name := range list.names {
			name, n := strings.ReplaceAll(strings.ReplaceAll(name, "interface {}", "any"), "[]uint8", "[]byte"), t.of(name)
			fmt.Fprintf(w, "  %6d %s\n", n, name)
		}
	}
}
