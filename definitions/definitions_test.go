package definitions_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/definitions"
	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/mem"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// management calls RabbitMQ's own definitions of the vhost that at names.
func management(t *testing.T, at, method string, body []byte) []byte {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	to := u.Query().Get("management") + "/api/definitions/" + url.PathEscape(strings.TrimPrefix(u.Path, "/"))
	req, err := http.NewRequestWithContext(t.Context(), method, to, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	req.SetBasicAuth(u.User.Username(), password)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 300 {
		t.Fatalf("%s definitions: %s %v: %s", method, res.Status, err, data)
	}
	return data
}

// hashing is the number of the exchange that is a plugin's.
const hashing = 19

// settle makes the fifty exchanges and queues of a RabbitMQ that has been used
// for years, by many programs, with its own client.
func settle(t *testing.T, at string) {
	t.Helper()
	u, _, _ := strings.Cut(at, "?")
	conn, err := amqp091.Dial(u)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	kinds := []string{"direct", "fanout", "topic", "headers"}
	for i := range 20 {
		var args amqp091.Table
		if i%5 == 1 {
			args = amqp091.Table{"alternate-exchange": fmt.Sprint("exchange ", i-1)}
		}
		kind := kinds[i%4]
		if i == hashing {
			kind, args = string(routing.ConsistentHash), amqp091.Table{"hash-header": "customer"}
		}
		check(ch.ExchangeDeclare(fmt.Sprint("exchange ", i), kind, i%7 != 3, false, false, false, args))
	}
	type args = amqp091.Table
	forms := []struct {
		durable, autoDelete bool
		args                args
	}{
		{true, false, nil}, // an old classic queue, as most are
		{true, false, args{"x-queue-type": "quorum"}},
		{true, false, args{"x-queue-type": "classic", "x-message-ttl": int32(60000), "x-dead-letter-exchange": ""}},
		{true, false, args{"x-queue-type": "quorum", "x-delivery-limit": int32(5), "x-dead-letter-exchange": "exchange 1", "x-dead-letter-routing-key": "dead"}},
		{true, false, args{"x-max-priority": int32(5)}},
		{true, false, args{"x-max-length": int32(1000), "x-overflow": "reject-publish"}},
		{true, false, args{"x-queue-type": "quorum", "x-dead-letter-exchange": "exchange 2", "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}},
		{true, false, args{"x-queue-type": "quorum", "x-max-length-bytes": int64(1 << 33), "x-single-active-consumer": true}},
		{true, false, args{"x-expires": int32(3600000), "x-max-length": int32(7), "x-overflow": "drop-head"}},
		{false, false, args{"x-message-ttl": int32(100)}},
		{true, true, nil},
		{false, true, args{"x-single-active-consumer": true}},
	}
	for i := range 30 {
		f := forms[i%len(forms)]
		_, err := ch.QueueDeclare(fmt.Sprint("queue/", i, " ä"), f.durable, f.autoDelete, false, false, f.args)
		check(err)
	}
	for i := range 60 {
		var match args
		switch i % 6 {
		case 3:
			match = args{"x-match": "any", "region": "eu", "size": int32(7), "there": nil}
		case 5:
			match = args{"x-match": "all-with-x", "x-tag": "t", "ratio": 1.5, "whole": 2.0, "yes": true}
		}
		key := []string{"", "a.b", "a.*.#", "key <&>"}[i%4]
		if i%20 == hashing {
			key, match = fmt.Sprint(1+i/20), nil // its weight
		}
		check(ch.QueueBind(fmt.Sprint("queue/", i%30, " ä"), key, fmt.Sprint("exchange ", i%20), false, match))
	}
	check(ch.ExchangeBind("exchange 7", "up", "exchange 2", false, nil))
	check(ch.ExchangeBind("exchange 0", "loop", "exchange 0", false, nil))
	check(ch.QueueBind("queue/0 ä", "predeclared.#", "amq.topic", false, nil))
}

// canonical is a definitions.json as a list of lines that two files share if
// they mean the same: a queue without x-queue-type is a classic one, and one
// without x-overflow drops the head.
func canonical(t *testing.T, data []byte) (lines []string) {
	t.Helper()
	var f map[string][]map[string]any
	var sections map[string]json.RawMessage
	if err := json.Unmarshal(data, &sections); err != nil {
		t.Fatal(err)
	}
	f = map[string][]map[string]any{}
	for _, name := range []string{"exchanges", "queues", "bindings"} {
		var list []map[string]any
		if err := json.Unmarshal(sections[name], &list); err != nil {
			t.Fatal(err)
		}
		f[name] = list
	}
	for name, list := range f {
		for _, e := range list {
			if args := e["arguments"].(map[string]any); name == "queues" {
				if args["x-queue-type"] == nil {
					args["x-queue-type"] = "classic"
				}
				if args["x-overflow"] == "drop-head" {
					delete(args, "x-overflow")
				}
				delete(e, "type") // newer versions say it twice
			}
			delete(e, "vhost")
			text, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, name+" "+string(text))
		}
	}
	slices.Sort(lines)
	return lines
}

func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	g, w := canonical(t, got), canonical(t, want)
	for _, line := range w {
		if !slices.Contains(g, line) {
			t.Errorf("%s: missing %s", what, line)
		}
	}
	for _, line := range g {
		if !slices.Contains(w, line) {
			t.Errorf("%s: made up %s", what, line)
		}
	}
}

func open(t *testing.T, at string) *polymq.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := polymq.Open(ctx, at, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// The exchanges and queues of a real RabbitMQ, laid on each backend and exported
// from there, are the same.
func TestFiftyThereAndBack(t *testing.T) {
	source := testbroker.URL(t, "amqp")
	settle(t, source)
	exported := management(t, source, http.MethodGet, nil)
	if n := strings.Count(strings.Join(canonical(t, exported), "\n"), "queues {") + strings.Count(strings.Join(canonical(t, exported), "\n"), "exchanges {"); n != 50 {
		t.Fatalf("RabbitMQ exported %d exchanges and queues: %s", n, exported)
	}
	for _, scheme := range []string{"mem", "nats", "redis", "amqp"} {
		t.Run(scheme, func(t *testing.T) {
			at := testbroker.URL(t, scheme)
			conn := open(t, at)
			topology, lost, err := definitions.Import(exported, &definitions.ImportOptions{RabbitMQ: scheme == "amqp"})
			if err != nil || len(lost) > 0 {
				t.Fatalf("Import: %v, lost %v", err, lost)
			}
			if err := conn.Declare(t.Context(), topology); err != nil {
				t.Fatal(err)
			}
			if plan, err := conn.Plan(t.Context(), topology); err != nil || !plan.Done() || len(plan.Extra.Queues) > 0 {
				t.Errorf("after Declare: %v\n%v", err, plan)
			}
			stands, err := conn.Topology(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			again, lost, err := definitions.Export(stands, &definitions.ExportOptions{Version: "3.10.8"})
			if err != nil || len(lost) > 0 {
				t.Fatalf("Export: %v, lost %v", err, lost)
			}
			same(t, "exported from "+scheme, again, exported)
			back := testbroker.URL(t, "amqp")
			management(t, back, http.MethodPost, again)
			same(t, "imported by RabbitMQ from "+scheme, management(t, back, http.MethodGet, nil), exported)
		})
	}
}

const several = `{
  "rabbit_version": "3.10.8", "product_name": "RabbitMQ",
  "users": [{"name": "guest", "password_hash": "x", "tags": []}], "vhosts": [{"name": "/"}, {"name": "other"}],
  "permissions": [{"user": "guest", "vhost": "/", "configure": ".*"}, {"user": "else", "vhost": "other"}],
  "parameters": [{"component": "shovel", "vhost": "/", "name": "move", "value": {}}], "global_parameters": [{"name": "cluster_name", "value": "c"}],
  "policies": [
    {"vhost": "/", "name": "all", "pattern": "", "apply-to": "all", "priority": 0, "definition": {"alternate-exchange": "alt", "max-length": 9}},
    {"vhost": "/", "name": "short", "pattern": "^lim", "apply-to": "queues", "priority": 2, "definition": {"message-ttl": 1000, "dead-letter-exchange": "x", "ha-mode": "all"}},
    {"vhost": "/", "name": "look", "pattern": "(?<=x)y", "apply-to": "queues", "priority": 1, "definition": {}}
  ],
  "exchanges": [
    {"name": "x", "vhost": "/", "type": "topic", "durable": true, "auto_delete": true, "internal": true, "arguments": {}},
    {"name": "late", "vhost": "/", "type": "x-delayed-message", "durable": true, "auto_delete": false, "internal": false, "arguments": {"x-delayed-type": "direct"}},
    {"name": "elsewhere", "vhost": "other", "type": "topic", "durable": true, "auto_delete": false, "internal": false, "arguments": {}}
  ],
  "queues": [
    {"name": "plain", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {"x-queue-mode": "lazy", "x-max-priority": 10, "x-message-ttl": 0}},
    {"name": "limited", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {"x-message-ttl": 5000, "x-dead-letter-exchange": "own"}},
    {"name": "log", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {"x-queue-type": "stream"}}
  ],
  "bindings": [
    {"source": "x", "vhost": "/", "destination": "plain", "destination_type": "queue", "routing_key": "a.#", "arguments": {}},
    {"source": "x", "vhost": "/", "destination": "log", "destination_type": "queue", "routing_key": "l", "arguments": {}},
    {"source": "late", "vhost": "/", "destination": "plain", "destination_type": "queue", "routing_key": "d", "arguments": {}}
  ]
}`

func TestImportLosses(t *testing.T) {
	topology, lost, err := definitions.Import([]byte(several), &definitions.ImportOptions{VHost: "/"})
	if err != nil {
		t.Fatal(err)
	}
	want := routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic, Alternate: "alt"}},
		Queues: []routing.Queue{
			{Name: "limited", TTL: time.Second, DeadLetterExchange: "own", BestEffortDeadLetter: true, Type: routing.Classic},
			{Name: "plain", MaxLength: 9, MaxPriority: 9},
		},
		Bindings: []routing.Binding{{Exchange: "x", Queue: "plain", Key: "a.#"}},
	}
	if fmt.Sprint(topology) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", topology, want)
	}
	var got []string
	for _, l := range lost {
		got = append(got, l.String())
	}
	for _, want := range []string{
		`exchange "late": not carried, nor its bindings: Kind: invalid: "x-delayed-message" is not known`,
		`exchange "x": internal: there it can be published to`,
		`exchange "x": auto_delete: there it stays when its last binding goes`,
		`queue "log": not carried, nor its bindings: x-queue-type: only RabbitMQ has queues of type stream`,
		`queue "plain": x-max-priority: of its 10 priorities 9 are left`,
		`queue "plain": x-message-ttl 0: want a number above 0`,
		`queue "plain": x-queue-mode: only RabbitMQ has it`,
		`policy "short": ha-mode: there is nothing like it in a topology`,
		`policy "look": not applied: its pattern is none that Go can read`,
		`binding "x" -> "log", key "l": not carried: one of its ends is not`,
		`binding "late" -> "plain", key "d": not carried: one of its ends is not`,
		`parameter shovel "move": no part of a topology`,
		`global parameter "cluster_name": no part of a topology`,
		`permission "guest": no part of a topology`,
		`user "guest": no part of a topology`,
	} {
		i := slices.IndexFunc(got, func(s string) bool { return strings.HasPrefix(s, want) })
		if i < 0 {
			t.Errorf("not listed: %s", want)
			continue
		}
		got = slices.Delete(got, i, i+1)
	}
	if len(got) > 0 {
		t.Errorf("listed too: %s", strings.Join(got, "\n"))
	}
	onRabbitMQ, lost, err := definitions.Import([]byte(several), &definitions.ImportOptions{VHost: "/", RabbitMQ: true})
	if err != nil || onRabbitMQ.Queues[1].Args["x-queue-mode"] != "lazy" || onRabbitMQ.Queues[0].TTL != 5*time.Second {
		t.Errorf("for a RabbitMQ: %v %+v", err, onRabbitMQ.Queues)
	}
	if !slices.ContainsFunc(lost, func(l definitions.Loss) bool { return l.Element == `policy "short"` }) {
		t.Errorf("for a RabbitMQ the policies are not listed: %v", lost)
	}
}

func TestImportRefuses(t *testing.T) {
	for _, tc := range []struct {
		data, vhost, want string
	}{
		{several, "", `the file has the vhosts "/", "other": choose one`},
		{several, "third", `no vhost "third": it has "/", "other"`},
		{`{"name": "package"}`, "", "no definitions.json"},
		{`[`, "", "unexpected"},
		{`{"queues": []} {"queues": [{"name": "q"}]}`, "", "something follows"},
		{`{"queues": [{"name": 7}]}`, "", "cannot unmarshal number"},
	} {
		_, _, err := definitions.Import([]byte(tc.data), &definitions.ImportOptions{VHost: tc.vhost})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %s", err, tc.want)
		}
	}
}

// From 4.0 on a quorum queue gives up at the 20th return unless it is told
// otherwise, and before, -1 would make it give up at the first.
func TestDeliveryLimits(t *testing.T) {
	read := func(version string) int {
		topology, _, err := definitions.Import([]byte(`{"rabbitmq_version": "`+version+`", "queues": [{"name": "q", "durable": true, "arguments": {"x-queue-type": "quorum"}}]}`), nil)
		if err != nil {
			t.Fatal(err)
		}
		return topology.Queues[0].MaxAttempts
	}
	if a, b := read("3.13.7"), read("4.1.0"); a != 0 || b != 21 {
		t.Errorf("without x-delivery-limit a queue of 3.13 has MaxAttempts %d, one of 4.1 %d", a, b)
	}
	for version, want := range map[string]string{"": `"x-delivery-limit": -1`, "3.13.7": `{
        "x-queue-type": "quorum"
      }`} {
		data, _, err := definitions.Export(routing.Topology{Queues: []routing.Queue{{Name: "q"}}}, &definitions.ExportOptions{Version: version})
		if err != nil || !strings.Contains(string(data), want) {
			t.Errorf("for version %q: %v\n%s", version, err, data)
		}
	}
}

func TestExportLosses(t *testing.T) {
	_, lost, err := definitions.Export(routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Headers}},
		Queues:    []routing.Queue{{Name: "mine", Exclusive: true}, {Name: "q"}},
		Bindings: []routing.Binding{
			{Exchange: "x", Queue: "mine"}, {Exchange: "x", Queue: "q", Args: map[string]any{"b": []byte("b"), "t": time.Unix(1, 0)}},
		},
	}, nil)
	want := []definitions.Loss{
		{Element: `queue "mine"`, Reason: "not written, nor its bindings: it is exclusive to a connection"},
		{Element: `binding "x" -> "q", key ""`, Reason: "b: JSON has no bytes: they are written as base64"},
		{Element: `binding "x" -> "q", key ""`, Reason: "t: JSON has no times: it is written as a number of seconds"},
	}
	slices.SortFunc(lost, func(a, b definitions.Loss) int { return strings.Compare(a.Reason[:1], b.Reason[:1]) })
	slices.SortFunc(want, func(a, b definitions.Loss) int { return strings.Compare(a.Reason[:1], b.Reason[:1]) })
	if err != nil || !slices.Equal(lost, want) {
		t.Errorf("%v\ngot  %v\nwant %v", err, lost, want)
	}
	if _, _, err := definitions.Export(routing.Topology{Queues: []routing.Queue{{}}}, nil); err == nil {
		t.Error("an illegal topology was written")
	}
}

func FuzzImport(f *testing.F) {
	f.Add([]byte(several), "/")
	f.Add([]byte(`{"queues":[{"name":"q","arguments":{"x-overflow":"reject-publish","x-max-length":1e9}}]}`), "")
	f.Fuzz(func(t *testing.T, data []byte, vhost string) {
		topology, _, err := definitions.Import(data, &definitions.ImportOptions{VHost: vhost})
		if err != nil {
			return
		}
		if err := topology.Validate(); err != nil {
			t.Fatalf("imported what is not legal: %v", err)
		}
		if _, _, err := definitions.Export(topology, nil); err != nil {
			t.Fatal(err)
		}
	})
}
