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
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// management is RabbitMQ's HTTP API, which alone can list what stands.
type management struct {
	base     string
	user     string
	password driver.Secret
	vhost    string
	client   *http.Client
}

func newManagement(s settings) (*management, error) {
	if s.management == "" {
		return nil, nil
	}
	u, err := url.Parse(s.management)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("URL option management must be the address of RabbitMQ's management API, like http://localhost:15672 (percent-encoded where it holds & or #)")
	}
	m := &management{user: s.user, password: s.password, vhost: url.PathEscape(s.vhost)}
	if u.User != nil {
		m.user = u.User.Username()
		password, _ := u.User.Password()
		m.password = driver.NewSecret(password)
		u.User = nil
	}
	u.RawQuery, u.Fragment = "", ""
	m.base = strings.TrimSuffix(u.String(), "/")
	// Its calls are rare: connections kept would be goroutines kept.
	m.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, TLSClientConfig: s.tls.Clone()}}
	return m, nil
}

func needManagement(what string) error {
	return fmt.Errorf("%w: %s needs RabbitMQ's management API: add ?management=http://host:15672 to the URL", errors.ErrUnsupported, what)
}

// get reads the JSON at a path below the vhost.
func (m *management) get(ctx context.Context, into any, collection string, name ...string) error {
	path := m.base + "/api/" + collection + "/" + m.vhost
	for _, n := range name {
		path += "/" + url.PathEscape(n)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	req.SetBasicAuth(m.user, m.password.Text())
	res, err := m.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("management API: %w", err)
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
		dec := json.NewDecoder(res.Body)
		dec.UseNumber() // 1 and 1.0 are different arguments
		if err := dec.Decode(into); err != nil {
			return fmt.Errorf("management API: %s: %w", collection, err)
		}
		return nil
	case http.StatusNotFound:
		return fmt.Errorf("%w: management API: %s %q", driver.ErrNotFound, collection, name)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: management API: %s: give the user the tag management, or another user in the management option", driver.ErrPermission, res.Status)
	}
	text, _ := io.ReadAll(io.LimitReader(res.Body, 300))
	return fmt.Errorf("management API: %s: %s", res.Status, text)
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

func (q queueRow) typeName() string {
	if t, ok := q.Arguments[argQueueType].(string); ok {
		return t
	}
	if q.Type != "" {
		return strings.TrimPrefix(q.Type, "rabbit_")
	}
	return typeClassic
}

func (q queueRow) kind() queueKind {
	k := queueKind{kind: q.typeName(), temporary: q.Exclusive || q.Deleted, refuses: q.refuses()}
	if n, ok := jsonValue(q.Arguments[argDeliveryLimit]).(int64); ok && n >= 0 {
		k.limit = int(n) + 1
	}
	return k
}

func (q queueRow) refuses() bool {
	policy, _ := q.Policy.(map[string]any)
	return refusesBy(q.Arguments, policy)
}

func (e exchangeRow) exchange() routing.Exchange {
	x := routing.Exchange{Name: e.Name, Kind: routing.Kind(e.Type), Transient: !e.Durable}
	for name, v := range e.Arguments {
		if a, ok := v.(string); ok && name == argAlternate {
			x.Alternate = fieldName(a)
			continue
		}
		if x.Args == nil {
			x.Args = map[string]any{}
		}
		x.Args[name] = jsonValue(v)
	}
	return x
}

// fieldName is an exchange in a field where "" means none.
func fieldName(exchange string) string {
	if exchange == "" {
		return routing.DefaultExchange
	}
	return exchange
}

// routingQueue is the queue as it would be declared: Type and the arguments
// that Declare sets by itself are left out where they are what it would set.
// An argument whose value no field can have stays an argument.
func (q queueRow) routingQueue() routing.Queue {
	// RabbitMQ makes no difference between exclusive queues here.
	r := routing.Queue{Name: q.Name, Transient: !q.Durable && !q.Exclusive, Exclusive: q.Exclusive, AutoDelete: q.Deleted, MaxAttempts: q.kind().limit}
	overflow, _ := q.Arguments[argOverflow].(string)
	safe := false
	if dlx, ok := q.Arguments[argDeadLetterExchange].(string); ok {
		r.DeadLetterExchange = fieldName(dlx)
		r.DeadLetterKey, _ = q.Arguments[argDeadLetterKey].(string)
		safe = q.Arguments[argDeadLetterStrategy] == atLeastOnce && overflow == rejectPublish
		r.BestEffortDeadLetter = !safe
	}
	for name, v := range q.Arguments {
		v = jsonValue(v)
		switch name {
		case argQueueType, argDeadLetterExchange, argDeadLetterKey, argDeadLetterStrategy, argDeliveryLimit, argOverflow:
			continue
		}
		if setField(&r, name, v) {
			continue
		}
		if r.Args == nil {
			r.Args = map[string]any{}
		}
		r.Args[name] = v
	}
	if !safe || r.MaxLength > 0 || r.MaxBytes > 0 {
		r.Overflow = routing.Overflow(overflow)
	}
	if kind := q.typeName(); kind != r.DefaultType() {
		r.Type = kind
	}
	return r
}

// setField sets the field of r that stands for an argument; false where there
// is none, or none that can have this value.
func setField(r *routing.Queue, arg string, v any) bool {
	if arg == argSingleActive {
		r.SingleActiveConsumer, _ = v.(bool)
		return r.SingleActiveConsumer
	}
	n, ok := v.(int64)
	if !ok || n <= 0 {
		return false
	}
	switch arg {
	case argTTL:
		r.TTL = time.Duration(n) * time.Millisecond
	case argExpires:
		r.Expires = time.Duration(n) * time.Millisecond
	case argMaxLength:
		r.MaxLength = int(n)
	case argMaxBytes:
		r.MaxBytes = n
	case argMaxPriority:
		if n > 9 {
			return false
		}
		r.MaxPriority = int(n)
	default:
		return false
	}
	return true
}

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
		if v == "undefined" {
			v = nil // how the API shows AMQP's void
		}
		r.Args[name] = jsonValue(v)
	}
	return r
}

// jsonValue makes of JSON's numbers the integers and floats that they were.
func jsonValue(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = jsonValue(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = jsonValue(v[k])
		}
	}
	return v
}

// Topology implements driver.Conn. The driver's own delay levels are left out.
func (c *Conn) Topology(ctx context.Context) (routing.Topology, error) {
	var t routing.Topology
	if c.management == nil {
		return t, needManagement("Topology")
	}
	var exchanges []exchangeRow
	var queues []queueRow
	var bindings []bindingRow
	for _, part := range []struct {
		into any
		name string
	}{{&exchanges, "exchanges"}, {&queues, "queues"}, {&bindings, "bindings"}} {
		if err := c.management.get(ctx, part.into, part.name); err != nil {
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
			t.Queues = append(t.Queues, q.routingQueue())
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
	return seen(args).(map[string]any)
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
