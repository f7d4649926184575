package amqp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/rabbitmq"
	"github.com/polymq/polymq/routing"
)

// management is RabbitMQ's HTTP API, which alone can list what stands.
type management struct {
	bases    []string     // one of each host
	last     atomic.Int32 // the one that answered last
	user     string
	password driver.Secret
	vhost    string
	client   *http.Client
}

func newManagement(s settings) (*management, error) {
	if s.management == "" {
		return nil, nil
	}
	m := &management{user: s.user, password: s.password, vhost: url.PathEscape(s.vhost)}
	for _, text := range eachHost(s.management) {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, errors.New("URL option management must be the address of RabbitMQ's management API, like http://localhost:15672, or http://one:15672,two:15672 (percent-encoded where it holds & or #)")
		}
		if u.User != nil {
			m.user = u.User.Username()
			password, _ := u.User.Password()
			m.password = driver.NewSecret(password)
			u.User = nil
		}
		u.RawQuery, u.Fragment = "", ""
		m.bases = append(m.bases, strings.TrimSuffix(u.String(), "/"))
	}
	// Its calls are rare: connections kept would be goroutines kept.
	m.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, TLSClientConfig: s.tls.Clone()}}
	return m, nil
}

// eachHost makes of an address with several hosts, parted by commas, one of each.
func eachHost(address string) []string {
	scheme, rest, found := strings.Cut(address, "://")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	hosts, tail := rest[:end], rest[end:]
	at := strings.LastIndexByte(hosts, '@') + 1
	if !found || !strings.Contains(hosts[at:], ",") {
		return []string{address}
	}
	var each []string
	for host := range strings.SplitSeq(hosts[at:], ",") {
		each = append(each, scheme+"://"+hosts[:at]+host+tail)
	}
	return each
}

func needManagement(what string) error {
	return fmt.Errorf("%w: %s needs RabbitMQ's management API: add ?management=http://host:15672 to the URL", errors.ErrUnsupported, what)
}

// get reads the JSON at a path below the vhost, from the first host that answers.
func (m *management) get(ctx context.Context, into any, collection string, name ...string) error {
	first := int(m.last.Load())
	for i := range m.bases {
		n := (first + i) % len(m.bases)
		try, cancel := ctx, context.CancelFunc(func() {})
		if deadline, ok := ctx.Deadline(); ok && i < len(m.bases)-1 {
			// A host that hangs leaves time for the others.
			try, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(m.bases)-i))
		}
		answered, err := m.getFrom(try, m.bases[n], into, collection, name...)
		cancel()
		if answered {
			m.last.Store(int32(n))
		}
		if answered || i == len(m.bases)-1 || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// getFrom is get of one host; not answered where another one may.
func (m *management) getFrom(ctx context.Context, base string, into any, collection string, name ...string) (answered bool, err error) {
	path := base + "/api/" + collection + "/" + m.vhost
	for _, n := range name {
		path += "/" + url.PathEscape(n)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	if err != nil {
		return true, err
	}
	req.SetBasicAuth(m.user, m.password.Text())
	res, err := m.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		return false, fmt.Errorf("management API: %w", err)
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
		dec := json.NewDecoder(res.Body)
		dec.UseNumber() // 1 and 1.0 are different arguments
		if err := dec.Decode(into); err != nil {
			return false, fmt.Errorf("management API: %s: %w", collection, err)
		}
		return true, nil
	case http.StatusNotFound:
		return true, fmt.Errorf("%w: management API: %s %q", driver.ErrNotFound, collection, name)
	case http.StatusUnauthorized, http.StatusForbidden:
		return true, fmt.Errorf("%w: management API: %s: give the user the tag management, or another user in the management option", driver.ErrPermission, res.Status)
	}
	text, _ := io.ReadAll(io.LimitReader(res.Body, 300))
	return res.StatusCode < 500, fmt.Errorf("management API: %s: %s", res.Status, text)
}

// What the API says of exchanges, queues and bindings.
type (
	exchangeRow struct {
		Name      string         `json:"name"`
		Type      string         `json:"type"`
		Durable   bool           `json:"durable"`
		Arguments map[string]any `json:"arguments"`
	}
	queueRow struct {
		Name      string         `json:"name"`
		Type      string         `json:"type"`
		Durable   bool           `json:"durable"`
		Exclusive bool           `json:"exclusive"`
		Deleted   bool           `json:"auto_delete"`
		Arguments map[string]any `json:"arguments"`
		Policy    any            `json:"effective_policy_definition"` // a list where there is none, of some versions
		Unsettled int            `json:"messages_unacknowledged"`
	}
	bindingRow struct {
		Source      string         `json:"source"`
		Destination string         `json:"destination"`
		Kind        string         `json:"destination_type"`
		Key         string         `json:"routing_key"`
		Arguments   map[string]any `json:"arguments"`
	}
)

func (m *management) queue(ctx context.Context, name string) (queueRow, error) {
	if name != "." && name != ".." {
		var q queueRow
		err := m.get(ctx, &q, "queues", name)
		return q, err
	}
	// A path cannot hold these names.
	var all []queueRow
	if err := m.get(ctx, &all, "queues"); err != nil {
		return queueRow{}, err
	}
	for _, q := range all {
		if q.Name == name {
			return q, nil
		}
	}
	return queueRow{}, fmt.Errorf("%w: management API: queue %q", driver.ErrNotFound, name)
}

// row is what the fields of routing.Queue come from.
func (q queueRow) row() rabbitmq.Row {
	return rabbitmq.Row{Name: q.Name, Type: strings.TrimPrefix(q.Type, "rabbit_"), Durable: q.Durable, Exclusive: q.Exclusive, AutoDelete: q.Deleted, Arguments: q.Arguments}
}

func (q queueRow) kind() queueKind {
	row := q.row()
	return queueKind{kind: row.Kind(), limit: row.MaxAttempts(), temporary: q.Exclusive || q.Deleted, refuses: q.refuses()}
}

func (q queueRow) refuses() bool {
	policy, _ := q.Policy.(map[string]any)
	return refusesBy(q.Arguments, policy)
}

func (e exchangeRow) exchange() routing.Exchange {
	x := routing.Exchange{Name: e.Name, Kind: routing.Kind(e.Type), Transient: !e.Durable}
	for name, v := range e.Arguments {
		if a, ok := v.(string); ok && name == argAlternate {
			x.Alternate = rabbitmq.FieldName(a)
			continue
		}
		if x.Args == nil {
			x.Args = map[string]any{}
		}
		x.Args[name] = rabbitmq.Value(v)
	}
	return x
}

// undefined is how the API shows AMQP's void among a binding's arguments.
const undefined = "undefined"

func (b bindingRow) binding() routing.Binding {
	r := routing.Binding{Exchange: b.Source, Key: b.Key}
	if b.Kind == "exchange" {
		r.ToExchange = b.Destination
	} else {
		r.Queue = b.Destination
	}
	for name, v := range b.Arguments {
		if r.Args == nil {
			r.Args = map[string]any{}
		}
		if v == undefined {
			v = nil
		}
		r.Args[name] = rabbitmq.Value(v)
	}
	return r
}

// Topology implements driver.Conn. The driver's own delay levels are left out.
func (c *Conn) Topology(ctx context.Context) (routing.Topology, error) {
	if c.management == nil {
		return routing.Topology{}, needManagement("Topology")
	}
	return c.management.topology(ctx)
}

func (m *management) topology(ctx context.Context) (routing.Topology, error) {
	var t routing.Topology
	var exchanges []exchangeRow
	var queues []queueRow
	var bindings []bindingRow
	for _, part := range []struct {
		into any
		name string
	}{{&exchanges, "exchanges"}, {&queues, "queues"}, {&bindings, "bindings"}} {
		if err := m.get(ctx, part.into, part.name); err != nil {
			return t, err
		}
	}
	for _, e := range exchanges {
		if e.Name != "" && !strings.HasPrefix(e.Name, "amq.") && !strings.HasPrefix(e.Name, delayPrefix) {
			t.Exchanges = append(t.Exchanges, e.exchange())
		}
	}
	for _, q := range queues {
		if !strings.HasPrefix(q.Name, delayPrefix) {
			t.Queues = append(t.Queues, q.row().Queue())
		}
	}
	for _, b := range bindings {
		if b.Source != "" && !strings.HasPrefix(b.Source, delayPrefix) {
			t.Bindings = append(t.Bindings, b.binding())
		}
	}
	slices.SortFunc(t.Exchanges, func(a, b routing.Exchange) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(t.Queues, func(a, b routing.Queue) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(t.Bindings, compareBindings)
	return t, nil
}

func compareBindings(a, b routing.Binding) int {
	for _, pair := range [...][2]string{{a.Exchange, b.Exchange}, {a.Queue, b.Queue}, {a.ToExchange, b.ToExchange}, {a.Key, b.Key}} {
		if n := strings.Compare(pair[0], pair[1]); n != 0 {
			return n
		}
	}
	return strings.Compare(fmt.Sprint(a.Args), fmt.Sprint(b.Args))
}

// jsonForm is a value as the API would show it.
func jsonForm(v any) any {
	switch v := v.(type) {
	case []byte:
		return string(v)
	case time.Time:
		return v.Unix()
	}
	return v
}

// Seen implements driver.Viewer.
func (c *Conn) Seen(args map[string]any) map[string]any {
	if args == nil {
		return nil
	}
	table := seen(args).(map[string]any)
	for name, v := range table {
		if v == undefined {
			table[name] = nil
		}
	}
	return table
}

func seen(v any) any {
	switch v := v.(type) {
	case map[string]any:
		table := make(map[string]any, len(v))
		for name, e := range v {
			table[name] = seen(e)
		}
		return table
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = seen(e)
		}
		return list
	}
	return jsonForm(v)
}
