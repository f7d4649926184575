package acceptance_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// The recorded routes of real RabbitMQs; see routing/testdata.
type vectorCase struct {
	Exchanges []struct{ Name, Kind, Alternate string }
	Queues    []string
	Bindings  []struct {
		Source, Dest string
		ToExchange   bool `json:"to_exchange"`
		Key          string
		Args         map[string]vectorValue
	}
	Messages []struct {
		Exchange, Key string
		Headers       map[string]vectorValue
		CC, BCC       []string
		Queues        []string
		Returned      bool
	}
}

type vectorValue struct {
	T string
	V json.RawMessage
}

func (v vectorValue) value(t *testing.T) any {
	t.Helper()
	decode := func(p any) {
		if err := json.Unmarshal(v.V, p); err != nil {
			t.Fatal(err)
		}
	}
	switch v.T {
	case "string":
		var s string
		decode(&s)
		return s
	case "bool":
		var b bool
		decode(&b)
		return b
	case "int32", "int64":
		var n int64
		decode(&n)
		return n
	case "double":
		var f float64
		decode(&f)
		return f
	case "void":
		return nil
	}
	t.Fatalf("a vector of type %q", v.T)
	return nil
}

func values(t *testing.T, in map[string]vectorValue) map[string]any {
	t.Helper()
	if in == nil {
		return nil
	}
	out := make(map[string]any, len(in))
	for k, v := range in {
		out[k] = v.value(t)
	}
	return out
}

// A sampled case in a topology that it shares with others: its names carry a
// prefix.
type vectorNames string

func (p vectorNames) name(s string) string {
	if s == "" {
		return ""
	}
	return string(p) + s
}

// key prefixes keys that the default exchange takes for names of queues.
func (p vectorNames) key(exchange, s string, queues []string) string {
	if exchange == "" && slices.Contains(queues, s) {
		return p.name(s)
	}
	return s
}

func (p vectorNames) keys(exchange string, ss, queues []string) []any {
	var list []any
	for _, s := range ss {
		list = append(list, p.key(exchange, s, queues))
	}
	return list
}

// Promise 12, through real publishing and consuming: a tenth of the recorded
// messages, each to the queues that a real RabbitMQ gave it.
func TestVectors(t *testing.T) {
	b, err := os.ReadFile("../../routing/testdata/routing.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Cases []vectorCase }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) < 300 {
		t.Fatalf("%d cases", len(file.Cases))
	}
	for i, scheme := range []string{"mem", "amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			// Each backend another tenth: the pure table has seen them all.
			var cases []vectorCase
			for n := i; n < len(file.Cases); n += 10 {
				cases = append(cases, file.Cases[n])
			}
			checkVectors(t, open(t, testbroker.URL(t, scheme)), cases)
		})
	}
}

func checkVectors(t *testing.T, conn *polymq.Conn, cases []vectorCase) {
	ctx := within(t, 3*time.Minute)
	var topology routing.Topology
	for i, c := range cases {
		p := vectorNames(fmt.Sprintf("c%d.", i))
		for _, e := range c.Exchanges {
			topology.Exchanges = append(topology.Exchanges, routing.Exchange{Name: p.name(e.Name), Kind: routing.Kind(e.Kind), Alternate: p.name(e.Alternate)})
		}
		for _, q := range c.Queues {
			topology.Queues = append(topology.Queues, routing.Queue{Name: p.name(q)})
		}
		for _, b := range c.Bindings {
			to := routing.Binding{Exchange: p.name(b.Source), Key: b.Key, Args: values(t, b.Args)}
			if b.ToExchange {
				to.ToExchange = p.name(b.Dest)
			} else {
				to.Queue = p.name(b.Dest)
			}
			topology.Bindings = append(topology.Bindings, to)
		}
	}
	declare(t, conn, topology)

	// Publish everything, then look at the outcomes.
	type sending struct {
		receipt  *polymq.Receipt
		returned bool
	}
	sendings := make(map[string]sending)
	want := make(map[string][]string) // queue to IDs, in order
	pubs := make(map[string]*polymq.Publisher)
	for i, c := range cases {
		p := vectorNames(fmt.Sprintf("c%d.", i))
		for j, m := range c.Messages {
			exchange := p.name(m.Exchange)
			if pubs[exchange] == nil {
				pubs[exchange] = publisher(t, conn, exchange)
			}
			header := polymq.Header(values(t, m.Headers))
			for name, list := range map[string][]string{"CC": m.CC, "BCC": m.BCC} {
				if len(list) > 0 {
					if header == nil {
						header = polymq.Header{}
					}
					header[name] = p.keys(m.Exchange, list, c.Queues)
				}
			}
			id := fmt.Sprintf("%d/%d", i, j)
			r, err := pubs[exchange].PublishAsync(ctx, &polymq.Message{ID: id, Key: p.key(m.Exchange, m.Key, c.Queues), Header: header})
			if err != nil {
				t.Fatalf("case %d, message %d: %v", i, j, err)
			}
			sendings[id] = sending{r, m.Returned}
			for _, q := range m.Queues {
				want[p.name(q)] = append(want[p.name(q)], id)
			}
		}
	}
	for id, s := range sendings {
		err := s.receipt.Wait(ctx)
		if s.returned && !errors.Is(err, polymq.ErrUnroutable) || !s.returned && err != nil {
			t.Errorf("message %s: %v, but RabbitMQ returned it: %v", id, err, s.returned)
		}
	}

	// A last message ends each queue.
	end := publisher(t, conn, "")
	for _, q := range topology.Queues {
		if err := end.Publish(ctx, &polymq.Message{ID: "end", Key: q.Name}); err != nil {
			t.Fatal(err)
		}
		sub := subscriber(t, conn, q.Name, 100)
		var got []string
		for {
			d, err := sub.Receive(ctx)
			if err != nil {
				t.Fatalf("queue %s after %v: %v", q.Name, got, err)
			}
			if err := d.Ack(ctx); err != nil {
				t.Fatal(err)
			}
			if d.ID == "end" {
				break
			}
			if _, ok := d.Header["BCC"]; ok {
				t.Errorf("message %s still has its BCC", d.ID)
			}
			got = append(got, d.ID)
		}
		if err := sub.Close(ctx); err != nil {
			t.Fatal(err)
		}
		// Messages of different publishers may overtake each other.
		expected := want[q.Name]
		slices.SortFunc(got, strings.Compare)
		slices.SortFunc(expected, strings.Compare)
		if !slices.Equal(got, expected) {
			t.Errorf("queue %s got %v, want %v", q.Name, got, expected)
		}
	}
}
