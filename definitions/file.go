package definitions

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A Loss is what a topology or a file cannot carry of the other.
type Loss struct {
	Element string // like: queue "orders", or: users
	Reason  string // what of it, and why
}

// String is the loss on one line.
func (l Loss) String() string { return l.Element + ": " + l.Reason }

// losses collects each loss once.
type losses []Loss

func (l *losses) add(element, format string, args ...any) {
	loss := Loss{element, fmt.Sprintf(format, args...)}
	if !slices.Contains(*l, loss) {
		*l = append(*l, loss)
	}
}

// file is a definitions.json, as far as a topology has a place for it.
type file struct {
	Version   string     `json:"rabbitmq_version,omitempty"`
	Old       string     `json:"rabbit_version,omitempty"`
	VHosts    []vhost    `json:"vhosts,omitempty"`
	Policies  []policy   `json:"policies,omitempty"`
	Queues    []queue    `json:"queues"`
	Exchanges []exchange `json:"exchanges"`
	Bindings  []binding  `json:"bindings"`

	rest map[string]json.RawMessage
}

type vhost struct {
	Name string `json:"name"`
}

type queue struct {
	Name       string         `json:"name"`
	VHost      *string        `json:"vhost,omitempty"`
	Type       string         `json:"type,omitempty"`
	Durable    bool           `json:"durable"`
	AutoDelete bool           `json:"auto_delete"`
	Arguments  map[string]any `json:"arguments"`
}

type exchange struct {
	Name       string         `json:"name"`
	VHost      *string        `json:"vhost,omitempty"`
	Type       string         `json:"type"`
	Durable    bool           `json:"durable"`
	AutoDelete bool           `json:"auto_delete"`
	Internal   bool           `json:"internal"`
	Arguments  map[string]any `json:"arguments"`
}

type binding struct {
	Source      string         `json:"source"`
	VHost       *string        `json:"vhost,omitempty"`
	Destination string         `json:"destination"`
	Kind        string         `json:"destination_type"`
	Key         string         `json:"routing_key"`
	Arguments   map[string]any `json:"arguments"`
}

type policy struct {
	Name       string         `json:"name"`
	VHost      *string        `json:"vhost,omitempty"`
	Pattern    string         `json:"pattern"`
	ApplyTo    string         `json:"apply-to"`
	Priority   int            `json:"priority"`
	Definition map[string]any `json:"definition"`
}

var errNoDefinitions = errors.New("definitions: this is no definitions.json of RabbitMQ: want an object with the lists exchanges, queues and bindings")

func parse(data []byte) (*file, error) {
	var f file
	decode := func(into any) error {
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber() // 1 and 1.0 are different arguments
		if err := dec.Decode(into); err != nil {
			return err
		}
		if _, err := dec.Token(); err != io.EOF {
			return errors.New("something follows the object")
		}
		return nil
	}
	if err := decode(&f); err != nil {
		return nil, fmt.Errorf("definitions: %w", err)
	}
	if err := decode(&f.rest); err != nil {
		return nil, fmt.Errorf("definitions: %w", err)
	}
	if f.rest["exchanges"] == nil && f.rest["queues"] == nil && f.rest["bindings"] == nil {
		return nil, errNoDefinitions
	}
	for _, name := range []string{"rabbitmq_version", "rabbit_version", "vhosts", "policies", "queues", "exchanges", "bindings"} {
		delete(f.rest, name)
	}
	return &f, nil
}

// since reports that the file was written by this major version or a later one.
func (f *file) since(major int) bool {
	v := f.Version
	if v == "" {
		v = f.Old
	}
	first, _, _ := strings.Cut(v, ".")
	n, err := strconv.Atoi(first)
	return err == nil && n >= major
}

// vhost is the one that is wanted, or the only one; "" where the file is of one
// and does not name it.
func (f *file) vhost(want string) (string, error) {
	there := map[string]bool{}
	note := func(name *string) {
		if name != nil {
			there[*name] = true
		}
	}
	for _, v := range f.VHosts {
		there[v.Name] = true
	}
	for _, x := range f.Exchanges {
		note(x.VHost)
	}
	for _, q := range f.Queues {
		note(q.VHost)
	}
	for _, b := range f.Bindings {
		note(b.VHost)
	}
	names := slices.Sorted(maps.Keys(there))
	switch {
	case len(names) == 0:
		return "", nil
	case want == "" && len(names) == 1:
		return names[0], nil
	case want == "":
		return "", fmt.Errorf("definitions: the file has the vhosts %s: choose one (VHost)", quoted(names))
	case !there[want]:
		return "", fmt.Errorf("definitions: the file has no vhost %q: it has %s", want, quoted(names))
	}
	return want, nil
}

func quoted(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strconv.Quote(n)
	}
	return strings.Join(out, ", ")
}
