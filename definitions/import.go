package definitions

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/polymq/polymq/internal/rabbitmq"
	"github.com/polymq/polymq/routing"
)

// ImportOptions say what of a file is meant. nil means the defaults.
type ImportOptions struct {
	// VHost is the one whose topology is wanted. Default: the file's only one;
	// a file with several needs it.
	VHost string
	// RabbitMQ says that the topology is for a RabbitMQ: arguments that it
	// alone has are kept, and policies are listed, not applied, since they are
	// the broker's own there. Default: it is for any backend.
	RabbitMQ bool
}

// Import reads a definitions.json. The topology is legal and sorted by name,
// and holds all of the vhost's exchanges, queues and bindings but for what the
// losses say. The error is about the file as a whole.
func Import(data []byte, opts *ImportOptions) (routing.Topology, []Loss, error) {
	if opts == nil {
		opts = &ImportOptions{}
	}
	f, err := parse(data)
	if err != nil {
		return routing.Topology{}, nil, err
	}
	vhost, err := f.vhost(opts.VHost)
	if err != nil {
		return routing.Topology{}, nil, err
	}
	in := importing{file: f, opts: *opts, vhost: vhost, kinds: map[string]bool{}, queues: map[string]bool{}}
	in.policies = in.readPolicies()
	for _, x := range f.Exchanges {
		if in.here(x.VHost) {
			in.exchange(x)
		}
	}
	for _, q := range f.Queues {
		if in.here(q.VHost) {
			in.queue(q)
		}
	}
	for _, b := range f.Bindings {
		if in.here(b.VHost) && b.Source != "" { // a queue's own binding to the default exchange
			in.binding(b)
		}
	}
	in.others()
	// A plan of nothing becoming this is this, sorted, each once.
	t := routing.Compare(routing.Topology{}, in.t).Create
	return t, in.lost, nil
}

type importing struct {
	file     *file
	opts     ImportOptions
	vhost    string
	policies policies
	t        routing.Topology
	kinds    map[string]bool // exchanges that are carried
	queues   map[string]bool
	lost     losses
}

func (in *importing) here(vhost *string) bool { return vhost == nil || *vhost == in.vhost }

func (in *importing) readPolicies() policies {
	var here []policy
	for _, p := range in.file.Policies {
		switch {
		case !in.here(p.VHost):
		case in.opts.RabbitMQ:
			in.lost.add(fmt.Sprintf("policy %q", p.Name), "a topology has no policies: set it at the broker")
		default:
			here = append(here, p)
		}
	}
	return newPolicies(here, &in.lost)
}

func (in *importing) exchange(d exchange) {
	element := fmt.Sprintf("exchange %q", d.Name)
	in.policies.toExchange(&d)
	x := routing.Exchange{Name: d.Name, Kind: routing.Kind(d.Type), Transient: !d.Durable}
	for _, name := range slices.Sorted(maps.Keys(d.Arguments)) {
		if a, ok := d.Arguments[name].(string); ok && name == rabbitmq.ArgAlternate {
			x.Alternate = rabbitmq.FieldName(a)
			continue
		}
		if x.Args == nil {
			x.Args = map[string]any{}
		}
		x.Args[name] = rabbitmq.Value(d.Arguments[name])
	}
	if err := x.Validate(); err != nil {
		in.lost.add(element, "not carried, nor its bindings: %v", reason(err))
		return
	}
	if d.Internal {
		in.lost.add(element, "internal: there it can be published to")
	}
	if d.AutoDelete {
		in.lost.add(element, "auto_delete: there it stays when its last binding goes")
	}
	in.kinds[x.Name] = true
	in.t.Exchanges = append(in.t.Exchanges, x)
}

// reason is an error without what it repeats of its element.
func reason(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	if _, rest, ok := strings.Cut(text, `": `); ok {
		return rest
	}
	return text
}

func (in *importing) queue(d queue) {
	element := fmt.Sprintf("queue %q", d.Name)
	in.policies.toQueue(&d)
	row := rabbitmq.Row{Name: d.Name, Type: d.Type, Durable: d.Durable, AutoDelete: d.AutoDelete, Arguments: in.known(element, d)}
	q := row.Queue()
	if kind := row.Kind(); kind != routing.Quorum && kind != routing.Classic {
		in.lost.add(element, "not carried, nor its bindings: x-queue-type: only RabbitMQ has queues of type %s", kind)
		return
	}
	if !in.opts.RabbitMQ {
		for _, name := range slices.Sorted(maps.Keys(q.Args)) {
			in.lost.add(element, "%s: only RabbitMQ has it", name)
		}
		q.Args = nil
	}
	if q.MaxAttempts == 0 && row.Kind() == routing.Quorum && in.file.since(4) && d.Arguments[rabbitmq.ArgDeliveryLimit] == nil {
		q.MaxAttempts = 21
	}
	if err := q.Validate(); err != nil {
		in.lost.add(element, "not carried, nor its bindings: %v", reason(err))
		return
	}
	in.queues[q.Name] = true
	in.t.Queues = append(in.t.Queues, q)
}

// known are the arguments of a queue without the values that no field can have.
func (in *importing) known(element string, d queue) map[string]any {
	args := maps.Clone(d.Arguments)
	for _, name := range slices.Sorted(maps.Keys(args)) {
		n, isNumber := rabbitmq.Value(args[name]).(int64)
		switch name {
		case rabbitmq.ArgMaxPriority:
			if n > 9 {
				in.lost.add(element, "%s: of its %d priorities 9 are left, the highest that a message can have", name, n)
				args[name] = json.Number("9")
			} else if n <= 0 {
				delete(args, name)
			}
		case rabbitmq.ArgOverflow:
			if args[name] == "reject-publish-dlx" {
				in.lost.add(element, "%s reject-publish-dlx: what is refused is not dead-lettered: it is carried as reject-publish", name)
				args[name] = rabbitmq.RejectPublish
			}
			if !limited(args) && args[rabbitmq.ArgDeadLetterStrategy] != rabbitmq.AtLeastOnce {
				delete(args, name) // nothing overflows
			}
		case rabbitmq.ArgTTL, rabbitmq.ArgExpires, rabbitmq.ArgMaxLength, rabbitmq.ArgMaxBytes:
			if !isNumber || n <= 0 {
				in.lost.add(element, "%s %v: want a number above 0", name, args[name])
				delete(args, name)
			}
		case rabbitmq.ArgSingleActive:
			if args[name] == false {
				delete(args, name)
			}
		}
	}
	return args
}

func limited(args map[string]any) bool {
	for _, name := range []string{rabbitmq.ArgMaxLength, rabbitmq.ArgMaxBytes} {
		if n, ok := rabbitmq.Value(args[name]).(int64); ok && n > 0 {
			return true
		}
	}
	return false
}

func (in *importing) binding(d binding) {
	b := routing.Binding{Exchange: d.Source, Key: d.Key}
	carried := in.queues[d.Destination]
	if d.Kind == "exchange" {
		b.ToExchange, carried = d.Destination, in.has(d.Destination)
	} else {
		b.Queue = d.Destination
	}
	for name, v := range d.Arguments {
		if b.Args == nil {
			b.Args = map[string]any{}
		}
		if v == "undefined" {
			v = nil // how RabbitMQ shows AMQP's void
		}
		b.Args[name] = rabbitmq.Value(v)
	}
	if !carried || !in.has(d.Source) {
		in.lost.add(b.String(), "not carried: one of its ends is not")
		return
	}
	if err := (routing.Topology{Exchanges: in.t.Exchanges, Bindings: []routing.Binding{b}}).Validate(); err != nil {
		in.lost.add(b.String(), "not carried: %v", strings.TrimPrefix(err.Error(), b.String()+": "))
		return
	}
	in.t.Bindings = append(in.t.Bindings, b)
}

func (in *importing) has(exchange string) bool {
	_, always := routing.Predeclared(exchange)
	return always || in.kinds[exchange]
}

// others lists what is no part of a topology.
func (in *importing) others() {
	for _, name := range slices.Sorted(maps.Keys(in.file.rest)) {
		var list []struct {
			VHost     *string `json:"vhost"`
			Name      any     `json:"name"`
			User      string  `json:"user"`
			Component string  `json:"component"`
		}
		if json.Unmarshal(in.file.rest[name], &list) != nil {
			continue // the broker's version and the like
		}
		for _, e := range list {
			if !in.here(e.VHost) {
				continue
			}
			title, _ := e.Name.(string)
			title = strings.TrimSpace(e.Component + " " + strconv.Quote(cmp.Or(title, e.User)))
			in.lost.add(strings.TrimSuffix(strings.ReplaceAll(name, "_", " "), "s")+" "+title, "no part of a topology")
		}
	}
}
