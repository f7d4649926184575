package routing

import (
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"time"
)

// ConsistentHash is the kind of exchanges that send each message along one
// binding, chosen by a hash of its routing key: messages with the same key go
// the same way for as long as the bindings stand, and where one is added or
// removed, only the keys that it gets or had move. The binding key is its
// weight, a number from 1 on: the share of the keys that goes along it. Where
// several bindings lead to the same place, their weights add up.
//
// The exchange's argument "hash-header" names a header whose value is hashed
// instead of the key, or "hash-property" a property: "message_id",
// "correlation_id" or "timestamp". Messages without it all go the same way.
//
// RabbitMQ has it with its plugin rabbitmq_consistent_hash_exchange, and splits
// as evenly, but not the same: which key goes where is each backend's own.
const ConsistentHash Kind = "x-consistent-hash"

const (
	hashHeader   = "hash-header"
	hashProperty = "hash-property"
	maxWeight    = 1 << 20

	argsField, keyField = "Args", "Key" // as errors name them
)

var hashProperties = []string{"message_id", "correlation_id", "timestamp"}

type consistentHash struct{}

func (consistentHash) CheckExchange(x Exchange) error {
	for _, name := range slices.Sorted(maps.Keys(x.Args)) {
		text, ok := x.Args[name].(string)
		switch {
		case name != hashHeader && name != hashProperty:
			return fmt.Errorf("%s[%s]: %w: want %s or %s", argsField, name, ErrInvalid, hashHeader, hashProperty)
		case !ok || text == "":
			return fmt.Errorf("%s[%s]: %w: %v: want a name", argsField, name, ErrInvalid, x.Args[name])
		case len(x.Args) > 1:
			return fmt.Errorf("%s: %w: %s and %s exclude each other", argsField, ErrInvalid, hashHeader, hashProperty)
		case name == hashProperty && !slices.Contains(hashProperties, text):
			return fmt.Errorf("%s[%s]: %w: %q: want one of %q", argsField, name, ErrInvalid, text, hashProperties)
		}
	}
	return nil
}

func (consistentHash) CheckBinding(b Binding) error {
	if n, err := strconv.Atoi(b.Key); err != nil || n < 1 || n > maxWeight || strconv.Itoa(n) != b.Key {
		return fmt.Errorf("%s: %w: %q is the binding's weight: want a number from 1 to %d", keyField, ErrInvalid, b.Key, maxWeight)
	}
	return nil
}

// Compile makes of every destination a candidate with its weight. The one that
// a message goes to is found by weighted rendezvous: each candidate draws a
// number by the hash of the message's key and its own, and the best one wins.
// The others' numbers do not depend on who else there is.
func (consistentHash) Compile(x Exchange, bs []Binding) Matcher {
	m := &hashMatcher{}
	m.header, _ = x.Args[hashHeader].(string)
	m.property, _ = x.Args[hashProperty].(string)
	at := map[string]int{}
	for i, b := range bs {
		name := "q" + b.Queue
		if b.ToExchange != "" {
			name = "x" + b.ToExchange
		}
		weight, _ := strconv.Atoi(b.Key) // CheckBinding has seen to it
		j, again := at[name]
		if !again {
			j, at[name] = len(m.candidates), len(m.candidates)
			m.candidates = append(m.candidates, candidate{index: i, seed: stableHash(name)})
		}
		m.candidates[j].weight += float64(weight)
	}
	for _, c := range m.candidates {
		m.uneven = m.uneven || c.weight != m.candidates[0].weight
	}
	return m
}

type hashMatcher struct {
	header, property string
	candidates       []candidate
	uneven           bool
}

type candidate struct {
	index  int
	seed   uint64
	weight float64
}

func (m *hashMatcher) Match(dst []int, msg *Message) []int {
	if len(m.candidates) == 0 {
		return dst
	}
	key := m.hash(msg)
	best, most := 0, uint64(0)
	if !m.uneven { // the largest draw wins whatever the weight
		for i := range m.candidates {
			if draw := mix(key ^ m.candidates[i].seed); draw >= most {
				best, most = i, draw
			}
		}
		return append(dst, m.candidates[best].index)
	}
	least := 0.0
	for i := range m.candidates {
		c := &m.candidates[i]
		if cost := negLog(mix(key^c.seed)) / c.weight; i == 0 || cost <= least {
			best, least = i, cost
		}
	}
	return append(dst, m.candidates[best].index)
}

func (m *hashMatcher) hash(msg *Message) uint64 {
	switch {
	case m.header != "":
		return hashValue(msg.Header[m.header])
	case m.property == "message_id":
		return stableHash(msg.ID)
	case m.property == "correlation_id":
		return stableHash(msg.CorrelationID)
	case m.property == "timestamp":
		if msg.Time.IsZero() {
			return stableHash("")
		}
		return mix(uint64(msg.Time.Unix()))
	}
	return stableHash(msg.Keys[0])
}

// hashValue hashes a header: what a headers exchange takes for equal has one
// hash.
func hashValue(v any) uint64 {
	switch v := v.(type) {
	case nil:
		return stableHash("")
	case string:
		return stableHash(v)
	case []byte:
		return stableHash(string(v))
	case int64:
		return mix(uint64(v))
	case int:
		return mix(uint64(v))
	case time.Time:
		return mix(uint64(v.Unix()))
	}
	n, err := normal(v, 0)
	if err != nil {
		return stableHash("")
	}
	return stableHash(canonical(n))
}

// stableHash is FNV-1a, the same in every process and for ever.
func stableHash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// mix spreads every bit over all, as the end of SplitMix64 does.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// negLog is -ln of a draw as a number above 0 and below 1. It is not math.Log,
// which may differ in its last bits between processors, and then two processes
// would not agree; the conversions keep the compiler from fusing operations.
func negLog(draw uint64) float64 {
	draw |= 1
	shift := bits.LeadingZeros64(draw)
	m := float64(draw<<shift>>11) / (1 << 53) // 1/2 <= m < 1, and draw is m / 2^shift
	s := (m - 1) / (m + 1)
	sq := float64(s * s)
	term, sum := s, s
	for n := 3; n <= 31; n += 2 {
		term = float64(term * sq)
		sum += term / float64(n)
	}
	return float64(float64(shift)*0.6931471805599453) - float64(2*sum)
}
