package oracle

import (
	"maps"
	"strings"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// renamer gives a run of a script names of its own, so that runs share a
// namespace.
type renamer struct {
	prefix string
	queues map[string]bool // that the script declares: keys may name them
}

// renamed is the script with a prefix on all names of queues and exchanges and
// on all IDs.
func renamed(s Script, prefix string) Script {
	r := renamer{prefix, map[string]bool{}}
	for _, op := range s.Ops {
		if d, ok := op.(Declare); ok {
			for _, q := range d.Topology.Queues {
				r.queues[q.Name] = true
			}
		}
	}
	ops := make([]Op, len(s.Ops))
	for i, op := range s.Ops {
		ops[i] = r.op(op)
	}
	s.Ops = ops
	return s
}

// bare is text without the prefix.
func bare(text, prefix string) string { return strings.ReplaceAll(text, prefix, "") }

// name of an exchange or queue, which need not exist.
func (r renamer) name(s string) string {
	if s == "" || s == unroutable || strings.HasPrefix(s, "amq.") {
		return s
	}
	return r.prefix + s
}

// key may be the name of a queue.
func (r renamer) key(s string) string {
	if r.queues[s] {
		return r.prefix + s
	}
	return s
}

func (r renamer) op(op Op) Op {
	switch o := op.(type) {
	case Declare:
		o.Topology = r.topology(o.Topology)
		return o
	case Bind:
		o.Binding = r.binding(o.Binding)
		return o
	case Unbind:
		o.Binding = r.binding(o.Binding)
		return o
	case DeleteQueue:
		o.Queue = r.name(o.Queue)
		return o
	case DeleteExchange:
		o.Exchange = r.name(o.Exchange)
		return o
	case Publish:
		o.Exchange = r.name(o.Exchange)
		ms := make([]polymq.Message, len(o.Messages))
		for i, m := range o.Messages {
			m.ID, m.Key = r.prefix+m.ID, r.key(m.Key)
			if m.Header != nil {
				m.Header = maps.Clone(m.Header)
				for _, name := range []string{"CC", "BCC"} {
					if list, ok := m.Header[name].([]any); ok {
						keys := make([]any, len(list))
						for i, k := range list {
							keys[i] = r.key(k.(string))
						}
						m.Header[name] = keys
					}
				}
			}
			ms[i] = m
		}
		o.Messages = ms
		return o
	case Purge:
		o.Queue = r.name(o.Queue)
		return o
	case Inspect:
		o.Queue = r.name(o.Queue)
		return o
	case Subscribe:
		o.Queue = r.name(o.Queue)
		return o
	case AwaitGone:
		o.Queue = r.name(o.Queue)
		return o
	}
	return op
}

func (r renamer) topology(t routing.Topology) routing.Topology {
	var n routing.Topology
	for _, x := range t.Exchanges {
		x.Name, x.Alternate = r.name(x.Name), r.name(x.Alternate)
		n.Exchanges = append(n.Exchanges, x)
	}
	for _, q := range t.Queues {
		q.Name, q.DeadLetterExchange, q.DeadLetterKey = r.name(q.Name), r.name(q.DeadLetterExchange), r.key(q.DeadLetterKey)
		n.Queues = append(n.Queues, q)
	}
	for _, b := range t.Bindings {
		n.Bindings = append(n.Bindings, r.binding(b))
	}
	return n
}

func (r renamer) binding(b routing.Binding) routing.Binding {
	b.Exchange, b.Queue, b.ToExchange = r.name(b.Exchange), r.name(b.Queue), r.name(b.ToExchange)
	b.Key = r.key(b.Key)
	return b
}
