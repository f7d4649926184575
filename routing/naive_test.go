package routing

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"time"
)

// naive routes by the plain text of a topology, as slowly as the rules read.
type naive Topology

func (n naive) exchange(name string) (Exchange, bool) {
	for _, x := range slices.Concat(n.Exchanges, predeclared) {
		if x.Name == name {
			return x, true
		}
	}
	return Exchange{}, false
}

func (n naive) route(exchange string, keys []string, header map[string]any) ([]string, error) {
	found := map[string]bool{}
	direct := func() {
		for _, key := range keys {
			if slices.ContainsFunc(n.Queues, func(q Queue) bool { return q.Name == key }) {
				found[key] = true
			}
		}
	}
	seen := map[string]bool{exchange: true}
	todo := []string{exchange}
	if exchange == "" {
		direct()
		todo = nil
	}
	for len(todo) > 0 {
		x, ok := n.exchange(todo[0])
		if !ok {
			return nil, ErrNoExchange
		}
		todo = todo[1:]
		matched := false
		visit := func(name string) {
			if _, ok := n.exchange(name); ok && !seen[name] {
				seen[name] = true
				todo = append(todo, name)
			}
		}
		for _, b := range n.Bindings {
			if b.Exchange != x.Name {
				continue
			}
			match := false
			switch x.Kind {
			case Direct:
				match = slices.Contains(keys, b.Key)
			case Fanout:
				match = true
			case Topic:
				for _, key := range keys {
					match = match || naiveTopic(b.Key, key)
				}
			case Headers:
				match = naiveHeaders(b.Args, header)
			default:
				return nil, errors.ErrUnsupported
			}
			if match {
				matched = true
				if b.Queue != "" {
					found[b.Queue] = true
				} else {
					visit(b.ToExchange)
				}
			}
		}
		if _, known := map[Kind]bool{Direct: true, Fanout: true, Topic: true, Headers: true}[x.Kind]; !known {
			return nil, errors.ErrUnsupported
		}
		if !matched && x.Alternate == DefaultExchange {
			direct()
		} else if !matched && x.Alternate != "" {
			visit(x.Alternate)
		}
	}
	var queues []string
	for q := range found {
		queues = append(queues, q)
	}
	slices.Sort(queues)
	return queues, nil
}

func naiveTopic(pattern, key string) bool {
	words := func(s string) []string {
		if s == "" {
			return nil
		}
		return strings.Split(s, ".")
	}
	return naiveWords(words(pattern), words(key))
}

func naiveWords(p, k []string) bool {
	switch {
	case len(p) == 0:
		return len(k) == 0
	case p[0] == "#":
		return naiveWords(p[1:], k) || len(k) > 0 && naiveWords(p, k[1:])
	case len(k) == 0:
		return false
	}
	return (p[0] == "*" || p[0] == k[0]) && naiveWords(p[1:], k[1:])
}

func naiveHeaders(args, header map[string]any) bool {
	mode, _ := args["x-match"].(string)
	all := mode == "" || strings.HasPrefix(mode, "all")
	for name, a := range args {
		if name == "x-match" || strings.HasPrefix(name, "x-") && !strings.HasSuffix(mode, "-with-x") {
			continue
		}
		v, ok := header[name]
		if ok && a != nil {
			ok = naiveEqual(a, v)
		}
		if ok != all {
			return !all
		}
	}
	return all
}

func naiveEqual(a, v any) bool {
	text := func(v any) ([]byte, bool) {
		if s, ok := v.(string); ok {
			return []byte(s), true
		}
		b, ok := v.([]byte)
		return b, ok
	}
	if x, ok := text(a); ok {
		y, ok := text(v)
		return ok && bytes.Equal(x, y)
	}
	if _, ok := a.(time.Time); ok {
		return false
	}
	x, _ := normal(a, 0)
	y, _ := normal(v, 0)
	return reflect.DeepEqual(x, y)
}
