package routing_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/polymq/polymq/routing"
)

// prefix is a kind of exchanges whose bindings match the keys that begin with
// theirs.
type prefix struct{}

func (prefix) CheckExchange(x routing.Exchange) error {
	if len(x.Args) > 0 {
		return fmt.Errorf("Args: %w: the kind x-prefix has none", routing.ErrInvalid)
	}
	return nil
}

func (prefix) CheckBinding(b routing.Binding) error {
	if b.Key == "" {
		return fmt.Errorf("Key: %w: empty: use a fanout exchange for all messages", routing.ErrInvalid)
	}
	return nil
}

func (prefix) Compile(_ routing.Exchange, bs []routing.Binding) routing.Matcher { return prefixes(bs) }

type prefixes []routing.Binding

func (bs prefixes) Match(dst []int, m *routing.Message) []int {
	for i, b := range bs {
		if slices.ContainsFunc(m.Keys, func(key string) bool { return strings.HasPrefix(key, b.Key) }) {
			dst = append(dst, i)
		}
	}
	return dst
}

func init() { routing.RegisterKind("x-prefix", prefix{}) }

// A kind of your own. Every program that publishes registers it, and it routes on
// each backend that has no exchanges of its own.
func ExampleRegisterKind() {
	table, err := routing.NewTable(routing.Topology{
		Exchanges: []routing.Exchange{{Name: "files", Kind: "x-prefix"}},
		Queues:    []routing.Queue{{Name: "logs"}, {Name: "all"}},
		Bindings:  []routing.Binding{{Exchange: "files", Queue: "logs", Key: "/var/log/"}, {Exchange: "files", Queue: "all", Key: "/"}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, key := range []string{"/var/log/syslog", "/etc/hosts"} {
		queues, err := table.Route(nil, "files", key, nil)
		slices.Sort(queues)
		fmt.Println(key, queues, err)
	}
	// Output:
	// /var/log/syslog [all logs] <nil>
	// /etc/hosts [all] <nil>
}
