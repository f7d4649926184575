package routing

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// ErrInvalid is wrapped by every error about a name, key, argument or element
// that is not legal.
var ErrInvalid = errors.New("invalid")

// The exchanges that every broker has, declared exactly so.
var predeclared = []Exchange{
	{Name: "amq.direct", Kind: Direct},
	{Name: "amq.fanout", Kind: Fanout},
	{Name: "amq.headers", Kind: Headers},
	{Name: "amq.match", Kind: Headers},
	{Name: "amq.topic", Kind: Topic},
}

// Predeclared returns the exchange that every broker has under name, and
// whether there is one. It cannot be changed or deleted.
func Predeclared(name string) (Exchange, bool) {
	if strings.HasPrefix(name, "amq.") {
		for _, x := range predeclared {
			if x.Name == name {
				return x, true
			}
		}
	}
	return Exchange{}, false
}

// CheckName reports what is wrong with the name of an exchange or queue: it
// must be 1 to 255 bytes of UTF-8 without control characters. Whether it is
// reserved is another question (Exchange.Validate, Queue.Validate).
func CheckName(name string) error {
	if name == "" {
		return fmt.Errorf("%w: empty: want 1 to 255 bytes", ErrInvalid)
	}
	return CheckKey(name)
}

// CheckKey reports what is wrong with a routing or binding key: it must be 0
// to 255 bytes of UTF-8 without control characters.
func CheckKey(key string) error {
	if len(key) > 255 {
		return fmt.Errorf("%w: %d bytes: want at most 255", ErrInvalid, len(key))
	}
	ascii := true
	for i := range len(key) {
		switch c := key[i]; {
		case c < ' ' || c == 0x7f:
			return fmt.Errorf("%w: control character %#02x at byte %d", ErrInvalid, c, i)
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	if ascii {
		return nil
	}
	if !utf8.ValidString(key) {
		return fmt.Errorf("%w: not UTF-8", ErrInvalid)
	}
	for i, r := range key {
		if r >= 0x80 && r < 0xa0 {
			return fmt.Errorf("%w: control character %U at byte %d", ErrInvalid, r, i)
		}
	}
	return nil
}

// Validate reports all that is wrong with t at once, joined; every problem
// names its element and field and wraps ErrInvalid. It does not ask whether
// bindings and alternates lead anywhere: what they name may already stand.
func (t Topology) Validate() error {
	var errs []error
	exchanges := make(map[string]Exchange, len(t.Exchanges))
	for _, x := range t.Exchanges {
		before, again := exchanges[x.Name]
		if !again {
			exchanges[x.Name] = x
		} else if field := x.differs(before); field != "" {
			errs = append(errs, fmt.Errorf("exchange %q: %s: %w: given twice, differently", x.Name, field, ErrInvalid))
		}
		errs = append(errs, x.Validate())
	}
	queues := make(map[string]Queue, len(t.Queues))
	for _, q := range t.Queues {
		before, again := queues[q.Name]
		if !again {
			queues[q.Name] = q
		} else if field := q.differs(before); field != "" {
			errs = append(errs, fmt.Errorf("queue %q: %s: %w: given twice, differently", q.Name, field, ErrInvalid))
		}
		errs = append(errs, q.Validate())
	}
	for _, b := range t.Bindings {
		errs = append(errs, b.Validate())
		x, ok := exchanges[b.Exchange]
		if !ok {
			x, ok = Predeclared(b.Exchange)
		}
		if ok {
			errs = append(errs, b.checkKind(x.Kind))
		}
	}
	return errors.Join(errs...)
}

// Validate reports all that is wrong with x at once; every problem names the
// exchange and the field and wraps ErrInvalid.
func (x Exchange) Validate() error {
	errs := x.check()
	if x.Kind != "" && x.Kind.Custom() && ruleOf(x.Kind) == nil {
		errs = append(errs, unknownKind(x))
	}
	return errors.Join(errs...)
}

// check is Validate for tables, which may hold kinds of a later version.
func (x Exchange) check() (errs []error) {
	if err := CheckName(x.Name); err != nil {
		errs = append(errs, fmt.Errorf("exchange %q: Name: %w", x.Name, err))
	} else if strings.HasPrefix(x.Name, "amq.") {
		standing, ok := Predeclared(x.Name)
		if !ok {
			errs = append(errs, fmt.Errorf("exchange %q: Name: %w: the prefix amq. is reserved", x.Name, ErrInvalid))
		} else if field := x.differs(standing); field != "" {
			errs = append(errs, fmt.Errorf("exchange %q: %s: %w: it is always there and cannot be declared differently", x.Name, field, ErrInvalid))
		}
	}
	if x.Kind == "" {
		errs = append(errs, fmt.Errorf("exchange %q: Kind: %w: empty: want one of %s", x.Name, ErrInvalid, kindList()))
	} else if err := CheckKey(string(x.Kind)); err != nil {
		errs = append(errs, fmt.Errorf("exchange %q: Kind: %w", x.Name, err))
	}
	if rule := ruleOf(x.Kind); rule != nil {
		if err := rule.CheckExchange(x); err != nil {
			errs = append(errs, fmt.Errorf("exchange %q: %w", x.Name, err))
		}
	}
	if err := CheckKey(x.Alternate); err != nil {
		errs = append(errs, fmt.Errorf("exchange %q: Alternate: %w", x.Name, err))
	}
	if _, err := normalArgs(x.Args); err != nil {
		errs = append(errs, fmt.Errorf("exchange %q: Args%w", x.Name, err))
	}
	for _, name := range slices.Sorted(maps.Keys(x.Args)) {
		if name == "alternate-exchange" {
			errs = append(errs, fmt.Errorf("exchange %q: Args[%s]: %w: use Alternate", x.Name, name, ErrInvalid))
		} else if field, ok := queueArgs[name]; ok {
			errs = append(errs, fmt.Errorf("exchange %q: Args[%s]: %w: an exchange keeps no messages: this is %s of a queue", x.Name, name, ErrInvalid, field))
		}
	}
	return errs
}

// Validate reports all that is wrong with q at once; every problem names the
// queue and the field and wraps ErrInvalid. What one broker alone demands of
// Type and Args is the driver's to say.
func (q Queue) Validate() error { return errors.Join(q.check()...) }

func (q Queue) check() (errs []error) {
	if err := CheckName(q.Name); err != nil {
		errs = append(errs, fmt.Errorf("queue %q: Name: %w", q.Name, err))
	} else if strings.HasPrefix(q.Name, "amq.") {
		errs = append(errs, fmt.Errorf("queue %q: Name: %w: the prefix amq. is reserved", q.Name, ErrInvalid))
	}
	for _, f := range [...]struct{ name, value string }{{"Type", q.Type}, {"DeadLetterExchange", q.DeadLetterExchange}, {"DeadLetterKey", q.DeadLetterKey}} {
		if err := CheckKey(f.value); err != nil {
			errs = append(errs, fmt.Errorf("queue %q: %s: %w", q.Name, f.name, err))
		}
	}
	if q.DeadLetterKey != "" && q.DeadLetterExchange == "" {
		errs = append(errs, fmt.Errorf("queue %q: DeadLetterKey: %w: without a DeadLetterExchange (routing.DefaultExchange is one)", q.Name, ErrInvalid))
	}
	if q.MaxAttempts < 0 {
		errs = append(errs, fmt.Errorf("queue %q: MaxAttempts: %w: %d is negative; 0 is no limit", q.Name, ErrInvalid, q.MaxAttempts))
	}
	errs = append(errs, q.checkLimits()...)
	if _, err := normalArgs(q.Args); err != nil {
		errs = append(errs, fmt.Errorf("queue %q: Args%w", q.Name, err))
	}
	for _, name := range slices.Sorted(maps.Keys(q.Args)) {
		if field, ok := queueArgs[name]; ok {
			errs = append(errs, fmt.Errorf("queue %q: Args[%s]: %w: use %s", q.Name, name, ErrInvalid, field))
		}
	}
	return errs
}

// queueArgs are RabbitMQ's arguments that fields of Queue stand for.
var queueArgs = map[string]string{
	"x-queue-type":              "Type",
	"x-dead-letter-exchange":    "DeadLetterExchange",
	"x-dead-letter-routing-key": "DeadLetterKey",
	"x-dead-letter-strategy":    "BestEffortDeadLetter",
	"x-delivery-limit":          "MaxAttempts",
	"x-message-ttl":             "TTL",
	"x-expires":                 "Expires",
	"x-max-length":              "MaxLength",
	"x-max-length-bytes":        "MaxBytes",
	"x-overflow":                "Overflow",
	"x-max-priority":            "MaxPriority",
	"x-single-active-consumer":  "SingleActiveConsumer",
}

// MaxTTL is the longest time that a message or an unused queue can be given,
// which is RabbitMQ's limit: about 49 days.
const MaxTTL = (1<<32 - 1) * time.Millisecond

// checkLimits is about what bounds a queue and its messages.
func (q Queue) checkLimits() (errs []error) {
	refuse := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("queue %q: %s: %w: "+format, append([]any{q.Name, field, ErrInvalid}, args...)...))
	}
	for _, f := range [...]struct {
		name  string
		value time.Duration
	}{{"TTL", q.TTL}, {"Expires", q.Expires}} {
		if f.value < 0 || f.value > MaxTTL || f.value%time.Millisecond != 0 {
			refuse(f.name, "%v: want whole milliseconds up to %v; 0 is for ever", f.value, MaxTTL)
		}
	}
	if q.MaxLength < 0 {
		refuse("MaxLength", "%d is negative; 0 is no limit", q.MaxLength)
	}
	if q.MaxBytes < 0 {
		refuse("MaxBytes", "%d is negative; 0 is no limit", q.MaxBytes)
	}
	switch q.Overflow {
	case "", DropHead, RejectPublish:
		if q.Overflow != "" && q.MaxLength == 0 && q.MaxBytes == 0 {
			refuse("Overflow", "without MaxLength or MaxBytes there is none")
		}
	default:
		refuse("Overflow", "%q: want drop-head or reject-publish", q.Overflow)
	}
	if q.MaxPriority < 0 || q.MaxPriority > 9 {
		refuse("MaxPriority", "%d: want 1 to 9; 0 is no priorities", q.MaxPriority)
	}
	return errs
}

// Rejects reports that the queue refuses what is beyond its limits.
func (q Queue) Rejects() bool { return q.Overflow == RejectPublish }

// Validate reports all that is wrong with b at once; every problem names the
// binding and the field and wraps ErrInvalid. What depends on the exchange's
// kind (a topic key has at most two # words) only Topology.Validate and a
// table can say.
func (b Binding) Validate() error {
	_, errs := b.check()
	return errors.Join(errs...)
}

func (b Binding) check() (args map[string]any, errs []error) {
	for _, f := range [...]struct{ name, value string }{{"Exchange", b.Exchange}, {"ToExchange", b.ToExchange}} {
		if f.name == "ToExchange" && f.value == "" {
			continue
		}
		if f.value == "" || f.value == DefaultExchange {
			errs = append(errs, fmt.Errorf("%v: %s: %w: the default exchange has no bindings but its own, one for each queue", b, f.name, ErrInvalid))
		} else if err := CheckName(f.value); err != nil {
			errs = append(errs, fmt.Errorf("%v: %s: %w", b, f.name, err))
		}
	}
	switch {
	case b.Queue == "" && b.ToExchange == "":
		errs = append(errs, fmt.Errorf("%v: Queue: %w: no destination: want Queue or ToExchange", b, ErrInvalid))
	case b.Queue != "" && b.ToExchange != "":
		errs = append(errs, fmt.Errorf("%v: Queue: %w: two destinations: want Queue or ToExchange, not both", b, ErrInvalid))
	case b.Queue != "":
		if err := CheckName(b.Queue); err != nil {
			errs = append(errs, fmt.Errorf("%v: Queue: %w", b, err))
		}
	}
	if err := CheckKey(b.Key); err != nil {
		errs = append(errs, fmt.Errorf("%v: Key: %w", b, err))
	}
	if len(b.Args) == 0 {
		return nil, errs
	}
	args, err := normalArgs(b.Args)
	if err != nil {
		errs = append(errs, fmt.Errorf("%v: Args%w", b, err))
	}
	if m, ok := b.Args["x-match"]; ok {
		switch m {
		case "all", "any", "all-with-x", "any-with-x":
		default:
			errs = append(errs, fmt.Errorf("%v: Args[x-match]: %w: %v: want all, any, all-with-x or any-with-x", b, ErrInvalid, m))
		}
	}
	return args, errs
}

// checkKind reports a binding that an exchange of that kind does not take.
func (b Binding) checkKind(kind Kind) error {
	if rule := ruleOf(kind); rule != nil {
		if err := rule.CheckBinding(b); err != nil {
			return fmt.Errorf("%v: %w", b, err)
		}
	}
	if kind == Topic && strings.Count(b.Key, "#") > 2 {
		n := 0
		for word := range strings.SplitSeq(b.Key, ".") {
			if word == "#" {
				n++
			}
		}
		if n > 2 {
			return fmt.Errorf("%v: Key: %w: %d words are #: a topic exchange takes at most two", b, ErrInvalid, n)
		}
	}
	return nil
}

// String is the binding as errors name it.
func (b Binding) String() string {
	to := strconv.Quote(b.Queue)
	if b.ToExchange != "" {
		to = "exchange " + strconv.Quote(b.ToExchange)
	}
	return fmt.Sprintf("binding %q -> %s, key %q", b.Exchange, to, b.Key)
}
