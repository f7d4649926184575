package definitions

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/polymq/polymq/internal/rabbitmq"
	"github.com/polymq/polymq/routing"
)

// policyArgs are the keys of policies that arguments of queues stand for.
var policyArgs = map[string]string{
	"message-ttl":             rabbitmq.ArgTTL,
	"expires":                 rabbitmq.ArgExpires,
	"max-length":              rabbitmq.ArgMaxLength,
	"max-length-bytes":        rabbitmq.ArgMaxBytes,
	"overflow":                rabbitmq.ArgOverflow,
	"dead-letter-exchange":    rabbitmq.ArgDeadLetterExchange,
	"dead-letter-routing-key": rabbitmq.ArgDeadLetterKey,
	"dead-letter-strategy":    rabbitmq.ArgDeadLetterStrategy,
	"delivery-limit":          rabbitmq.ArgDeliveryLimit,
}

// policies are those of one vhost, the highest priority first.
type policies struct {
	list     []policy
	patterns []*regexp.Regexp
	lost     *losses
}

func newPolicies(all []policy, lost *losses) policies {
	p := policies{lost: lost}
	slices.SortStableFunc(all, func(a, b policy) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Name, b.Name))
	})
	for _, one := range all {
		pattern, err := regexp.Compile(one.Pattern)
		if err != nil {
			lost.add(fmt.Sprintf("policy %q", one.Name), "not applied: its pattern is none that Go can read: %v", err)
			continue
		}
		p.list, p.patterns = append(p.list, one), append(p.patterns, pattern)
	}
	return p
}

// of is the policy that is in force for a queue or exchange.
func (p policies) of(name string, applies ...string) (policy, bool) {
	for i, one := range p.list {
		if slices.Contains(applies, cmp.Or(one.ApplyTo, "all")) && p.patterns[i].MatchString(name) {
			return one, true
		}
	}
	return policy{}, false
}

// toQueue adds to a queue's arguments what its policy sets.
func (p policies) toQueue(q *queue) {
	kind := rabbitmq.Row{Type: q.Type, Arguments: q.Arguments}.Kind()
	one, ok := p.of(q.Name, "all", "queues", map[string]string{routing.Classic: "classic_queues", routing.Quorum: "quorum_queues"}[kind])
	if !ok {
		return
	}
	q.Arguments = maps.Clone(q.Arguments)
	if q.Arguments == nil {
		q.Arguments = map[string]any{}
	}
	for _, key := range slices.Sorted(maps.Keys(one.Definition)) {
		arg, ok := policyArgs[key]
		if !ok {
			if key != "alternate-exchange" {
				p.lost.add(fmt.Sprintf("policy %q", one.Name), "%s: there is nothing like it in a topology", key)
			}
			continue
		}
		v := rabbitmq.Value(one.Definition[key])
		own, said := q.Arguments[arg]
		n, isNumber := v.(int64)
		m, wasNumber := rabbitmq.Value(own).(int64)
		if !said || isNumber && wasNumber && n < m {
			q.Arguments[arg] = v
		}
	}
}

// toExchange adds to an exchange's arguments what its policy sets.
func (p policies) toExchange(x *exchange) {
	one, ok := p.of(x.Name, "all", "exchanges")
	if !ok {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(one.Definition)) {
		if key != rabbitmq.ArgAlternate {
			if policyArgs[key] == "" {
				p.lost.add(fmt.Sprintf("policy %q", one.Name), "%s: there is nothing like it in a topology", key)
			}
			continue
		}
		if _, said := x.Arguments[key]; !said {
			args := maps.Clone(x.Arguments)
			if args == nil {
				args = map[string]any{}
			}
			args[key] = one.Definition[key]
			x.Arguments = args
		}
	}
}
