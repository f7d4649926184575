package definitions

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/polymq/polymq/internal/rabbitmq"
	"github.com/polymq/polymq/routing"
)

// ExportOptions say what file is wanted. nil means the defaults.
type ExportOptions struct {
	// VHost is the one that the elements are put into. Default: they name none,
	// for POST /api/definitions/VHOST.
	VHost string
	// Version is that of the RabbitMQ that will read the file, like "3.13.7". It
	// counts for quorum queues without MaxAttempts, which from 4.0 on have to
	// be told so. Default: "4.0.0".
	Version string
}

// Export writes a topology as a definitions.json, with the arguments that
// Declare on RabbitMQ would set, and drop-head where the topology says it. The error wraps routing.ErrInvalid where the
// topology is not legal.
func Export(t routing.Topology, opts *ExportOptions) ([]byte, []Loss, error) {
	if opts == nil {
		opts = &ExportOptions{}
	}
	if err := t.Validate(); err != nil {
		return nil, nil, fmt.Errorf("definitions: %w", err)
	}
	out := exporting{file: file{Version: cmp.Or(opts.Version, "4.0.0"), Queues: []queue{}, Exchanges: []exchange{}, Bindings: []binding{}}}
	if opts.VHost != "" {
		out.vhost = &opts.VHost
		out.file.VHosts = []vhost{{opts.VHost}}
	}
	if _, err := strconv.Atoi(strings.Split(out.file.Version, ".")[0]); err != nil {
		return nil, nil, fmt.Errorf("definitions: Version %q: want one like 3.13.7", opts.Version)
	}
	t = routing.Compare(routing.Topology{}, t).Create // sorted, each once
	for _, x := range t.Exchanges {
		out.exchange(x)
	}
	left := map[string]bool{}
	for _, q := range t.Queues {
		if q.Exclusive {
			left[q.Name] = true
			out.lost.add(fmt.Sprintf("queue %q", q.Name), "not written, nor its bindings: it is exclusive to a connection")
			continue
		}
		out.queue(q)
	}
	for _, b := range t.Bindings {
		if b.ToExchange != "" || !left[b.Queue] {
			out.binding(b)
		}
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(out.file)
	return buf.Bytes(), out.lost, err
}

type exporting struct {
	file  file
	vhost *string
	lost  losses
}

func (out *exporting) exchange(x routing.Exchange) {
	args := out.table(fmt.Sprintf("exchange %q", x.Name), x.Args)
	if x.Alternate != "" {
		args[rabbitmq.ArgAlternate] = rabbitmq.ExchangeName(x.Alternate)
	}
	out.file.Exchanges = append(out.file.Exchanges, exchange{Name: x.Name, VHost: out.vhost, Type: string(x.Kind), Durable: !x.Transient, Arguments: args})
}

func (out *exporting) queue(q routing.Queue) {
	args := out.table(fmt.Sprintf("queue %q", q.Name), q.Args)
	for name, v := range rabbitmq.Arguments(q, cmp.Or(q.Type, q.DefaultType()), out.file.since(4)) {
		args[name] = v
	}
	if q.Overflow == routing.DropHead {
		args[rabbitmq.ArgOverflow] = string(q.Overflow)
	}
	out.file.Queues = append(out.file.Queues, queue{Name: q.Name, VHost: out.vhost, Durable: !q.Transient, AutoDelete: q.AutoDelete, Arguments: args})
}

func (out *exporting) binding(b routing.Binding) {
	d := binding{Source: b.Exchange, VHost: out.vhost, Destination: b.Queue, Kind: "queue", Key: b.Key, Arguments: out.table(b.String(), b.Args)}
	if b.ToExchange != "" {
		d.Destination, d.Kind = b.ToExchange, "exchange"
	}
	out.file.Bindings = append(out.file.Bindings, d)
}

// table is arguments as the file can have them.
func (out *exporting) table(element string, args map[string]any) map[string]any {
	table := map[string]any{}
	for name, v := range args {
		table[name] = out.value(element, name, v)
	}
	return table
}

func (out *exporting) value(element, name string, v any) any {
	switch v := v.(type) {
	case nil:
		return "undefined" // how RabbitMQ shows AMQP's void
	case []byte:
		out.lost.add(element, "%s: JSON has no bytes: they are written as base64", name)
		return base64.StdEncoding.EncodeToString(v)
	case time.Time:
		out.lost.add(element, "%s: JSON has no times: it is written as a number of seconds", name)
		return v.Unix()
	case float64:
		text := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(text, ".e") {
			text += ".0"
		}
		return json.Number(text)
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = out.value(element, name, e)
		}
		return list
	case map[string]any:
		table := make(map[string]any, len(v))
		for k, e := range v {
			table[k] = out.value(element, name, e)
		}
		return table
	}
	return v
}
