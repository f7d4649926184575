package conformance

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var errorRows = []row{
	{promise: 23, name: "unknown-option", run: unknownOption},
	{promise: 23, name: "unknown-scheme", run: unknownScheme},
	{promise: 23, name: "bad-url", run: badURL},
	{promise: 23, name: "required-feature", run: requiredFeature},
	{promise: 23, name: "ended-context", run: openEndedContext},
	{promise: 23, name: "unknown-argument", run: unknownArgument},
	{promise: 23, name: "header-types", run: headerTypes},
	{promise: 23, name: "too-large", run: tooLarge},
	{promise: 23, name: "where", run: errorsSayWhere},
	{promise: 23, name: "declared-features", run: declaredFeatures},
	{promise: 23, name: "inspect", needs: []polymq.Feature{polymq.FeatureInspect}, run: inspects},
	{promise: 23, name: "purge", needs: []polymq.Feature{polymq.FeaturePurge}, run: purges},
}

// refused wants errors.ErrUnsupported of whatever asks for a feature that the
// backend refuses.
func (e *env) refused(f polymq.Feature) {
	e.Helper()
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", msg("q", "1"))
	var err error
	switch f {
	case polymq.FeatureMaxAttempts:
		err = c.Declare(e.ctx, topology(routing.Queue{Name: "r", MaxAttempts: 3}))
	case polymq.FeatureDeadLetter:
		err = c.Declare(e.ctx, topology(routing.Queue{Name: "r", DeadLetterExchange: "dlx"}))
	case polymq.FeatureDelayedNack:
		s := e.subscriber(c, "q", 1)
		d := e.body(s, "1")
		err = d.Nack(e.ctx, time.Second)
		e.ack(d)
	case polymq.FeatureTTL:
		e.mustBe(e.try(c, "", &polymq.Message{Key: "q", TTL: time.Minute}), "Publish of a message with a time to live", errors.ErrUnsupported)
		err = c.Declare(e.ctx, topology(routing.Queue{Name: "r", TTL: time.Minute}))
	case polymq.FeatureQueueExpiry:
		err = c.Declare(e.ctx, topology(routing.Queue{Name: "r", Expires: time.Minute}))
	case polymq.FeatureMaxLength:
		e.mustBe(c.Declare(e.ctx, topology(routing.Queue{Name: "r", MaxBytes: 1000})), "Declare with MaxBytes", errors.ErrUnsupported)
		err = c.Declare(e.ctx, topology(routing.Queue{Name: "r", MaxLength: 3}))
	case polymq.FeaturePriority:
		err = c.Declare(e.ctx, topology(routing.Queue{Name: "r", MaxPriority: 3}))
	case polymq.FeatureSingleActiveConsumer:
		err = c.Declare(e.ctx, topology(routing.Queue{Name: "r", SingleActiveConsumer: true}))
	case polymq.FeatureExclusive:
		err = c.Declare(e.ctx, topology(routing.Queue{Name: "r", Exclusive: true, Transient: true}))
	case polymq.FeatureAutoDelete:
		err = c.Declare(e.ctx, topology(routing.Queue{Name: "r", AutoDelete: true}))
	case polymq.FeatureDelay:
		err = e.try(c, "", &polymq.Message{Key: "q", Delay: time.Minute})
	case polymq.FeatureTopology:
		_, err = c.Topology(e.ctx)
	case polymq.FeatureInspect:
		_, err = c.Inspect(e.ctx, "q")
	case polymq.FeaturePurge:
		_, err = c.Purge(e.ctx, "q")
	case polymq.FeatureDedup:
		// Nothing asks for it: the window says that there is none.
		if w := c.Features().DedupWindow; w != 0 {
			e.Errorf("the backend refuses deduplication and declares a window of %v", w)
		}
		return
	case polymq.FeatureAttempts:
		// Nothing asks for it: Attempt is 0.
		if d := e.body(e.subscriber(c, "q", 1), "1"); d.Attempt != 0 {
			e.Errorf("the backend does not count attempts, and Attempt is %d, want 0", d.Attempt)
		}
		return
	default:
		e.Fatalf("a backend must have the feature %q", f)
	}
	if !errors.Is(err, errors.ErrUnsupported) {
		e.Errorf("the backend refuses the feature %q; asked for it, it returned %v, want errors.ErrUnsupported", f, err)
	}
	// The refusal has changed nothing.
	if f != polymq.FeatureDelayedNack {
		e.has(c, "q", "1")
	}
	e.mustBe(c.Verify(e.ctx, topology("r")), "Verify of a queue whose Declare was refused", polymq.ErrNotFound)
}

// wrongOpen opens something that must be refused and returns the error.
func (e *env) wrongOpen(what, url string, opts *polymq.Options) error {
	e.Helper()
	c, err := e.b.Open(e.ctx, url, opts)
	if err == nil {
		e.close(c)
		e.Fatalf("Open with %s returned nil", what)
	}
	return err
}

// says wants an error to name what helps.
func (e *env) says(err error, what string, words ...string) {
	e.Helper()
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			e.Errorf("%s: the error does not mention %q: %v", what, w, err)
		}
	}
}

// with adds an option to a URL.
func with(url, option string) string {
	if strings.Contains(url, "?") {
		return url + "&" + option
	}
	return url + "?" + option
}

func unknownOption(e *env) {
	url := e.namespace()
	err := e.wrongOpen("an unknown option", with(url, "no_such_option=1"), nil)
	e.says(err, "Open with an unknown option", "no_such_option")
	e.wrongOpen("an option given twice", with(with(url, "no_such_option=1"), "no_such_option=1"), nil)
	e.open() // the URL without it is fine
}

func unknownScheme(e *env) {
	err := e.wrongOpen("an unknown scheme", "nosuchbroker://localhost/", nil)
	e.says(err, "Open with an unknown scheme", "nosuchbroker")
}

func badURL(e *env) {
	scheme, _, _ := strings.Cut(e.namespace(), "://")
	for _, url := range []string{"", "localhost", scheme + ":", scheme + "://user:secret@host:notaport/", scheme + "://user:secret@%zz/", scheme + "://user:secret@a b/"} {
		err := e.wrongOpen("the URL "+url, url, nil)
		if strings.Contains(err.Error(), "secret") {
			e.Errorf("the error shows the URL's password: %v", err)
		}
	}
}

func requiredFeature(e *env) {
	f := e.open().Features()
	for _, feature := range allFeatures {
		opts := &polymq.Options{Require: []polymq.Feature{feature}}
		if f.Has(feature) {
			c, err := e.b.Open(e.ctx, e.namespace(), opts)
			e.must(err, "Open that requires %q, which the backend has", feature)
			e.close(c)
			continue
		}
		err := e.wrongOpen("a required feature that the backend refuses", e.namespace(), opts)
		e.mustBe(err, "Open that requires "+string(feature), errors.ErrUnsupported)
		e.says(err, "Open that requires a refused feature", string(feature))
	}
	e.wrongOpen("a required feature that nobody knows", e.namespace(), &polymq.Options{Require: []polymq.Feature{"no-such-feature"}})
}

func openEndedContext(e *env) {
	c, err := e.b.Open(e.ended(), e.namespace(), nil)
	if err == nil {
		e.close(c)
		e.Fatalf("Open with an ended context returned nil")
	}
	e.mustBe(err, "Open with an ended context", context.Canceled)
}

func unknownArgument(e *env) {
	c := e.open()
	err := c.Declare(e.ctx, topology(routing.Queue{Name: "q", Args: map[string]any{"x-no-such-argument": 1}}))
	e.mustBe(err, "Declare with an argument that nobody knows", errors.ErrUnsupported, polymq.ErrInvalid)
	e.says(err, "Declare with an unknown argument", "x-no-such-argument")
	e.mustBe(c.Verify(e.ctx, topology("q")), "Verify after that", polymq.ErrNotFound)
	err = c.Declare(e.ctx, topology(routing.Exchange{Name: "x", Kind: "no-such-kind"}))
	e.mustBe(err, "Declare of an exchange of an unknown kind", errors.ErrUnsupported, polymq.ErrInvalid)
	e.mustBe(e.try(c, "x", msg("", "")), "Publish after that", polymq.ErrNotFound)
}

func headerTypes(e *env) {
	c := e.open()
	e.declare(c, "q")
	for name, v := range map[string]any{
		"uint64": uint64(1), "uint8": uint8(1), "struct": struct{}{}, "map of strings": map[string]string{"a": "b"}, "slice of strings": []string{"a"},
		"func": func() {}, "pointer": new(int), "duration": time.Second, "complex": 1i, "nested": []any{[]any{uint64(1)}}, "in a table": polymq.Header{"a": struct{}{}},
	} {
		err := e.try(c, "", &polymq.Message{Key: "q", Header: polymq.Header{"h": v}})
		if err == nil || is(err, polymq.ErrUnconfirmed) {
			e.Errorf("a header of type %s (%T): got %v, want a refusal", name, v, err)
		} else {
			e.says(err, "a header of type "+name, "h")
		}
	}
	for _, cc := range []any{"a string", []any{1}, 5, polymq.Header{}} {
		for _, name := range []string{"CC", "BCC"} {
			if err := e.try(c, "", &polymq.Message{Key: "q", Header: polymq.Header{name: cc}}); err == nil {
				e.Errorf("%s as %T %v is no list of strings, and was taken", name, cc, cc)
			}
		}
	}
	// One bad message does not keep the others back.
	err := e.publisher(c, "").Publish(e.short(), msg("q", "1"), &polymq.Message{Key: "q", Header: polymq.Header{"h": uint64(1)}}, msg("q", "2"))
	if failed := e.failures(err); len(failed) != 1 || failed[1].Err == nil {
		e.Errorf("one bad message of three: got %v", err)
	}
	e.has(c, "q", "1", "2")
}

func tooLarge(e *env) {
	c := e.open()
	e.declare(c, "q")
	limit := c.Features().MaxMessageBytes
	if limit <= 0 {
		e.Fatalf("Features.MaxMessageBytes is %d", limit)
	}
	e.publish(c, "", &polymq.Message{Key: "q", Body: make([]byte, limit)})
	for range 2 {
		e.mustBe(e.try(c, "", &polymq.Message{Key: "q", Body: make([]byte, limit+1)}), "Publish of a body above Features.MaxMessageBytes", polymq.ErrTooLarge)
	}
	e.publish(c, "", msg("q", "others go on"))
	s := e.subscriber(c, "q", 1)
	d := e.receiveWithin(s, 6*e.b.Patience) // so much takes its time on a busy machine
	if len(d.Body) != limit {
		e.Errorf("got a body of %d bytes, want %d", len(d.Body), limit)
	}
	e.ack(d)
	e.ack(e.body(s, "others go on"))
	e.close(s)
	e.has(c, "q")
}

// errorsSayWhere looks at the shape of errors.
func errorsSayWhere(e *env) {
	c := e.open()
	_, err := c.Subscriber(e.ctx, "the missing queue", nil)
	var pe *polymq.Error
	if !errors.As(err, &pe) {
		e.Fatalf("Subscriber of a missing queue: got %T, want a *polymq.Error", err)
	}
	if pe.Op == "" || pe.Name != "the missing queue" || pe.Err == nil {
		e.Errorf("the error of Subscriber is %#v", pe)
	}
	e.says(err, "Subscriber of a missing queue", "the missing queue")
	e.says(e.try(c, "the missing exchange", msg("", "")), "Publish to a missing exchange", "the missing exchange")
	e.says(c.Bind(e.ctx, to("the missing exchange", "q", "")), "Bind of a missing exchange", "the missing exchange")
	if strings.Contains(err.Error(), "\n") {
		e.Errorf("an error of several lines: %q", err)
	}
}

// declaredFeatures looks for gaps in what the backend declares.
func declaredFeatures(e *env) {
	f := e.open().Features()
	if f.Backend == "" {
		e.Errorf("Features.Backend is empty")
	}
	for _, feature := range allFeatures {
		switch s := f.Support[feature]; s {
		case polymq.SupportNative, polymq.SupportEmulated, polymq.SupportRefused:
		default:
			e.Errorf("Features.Support[%q] is %q", feature, s)
		}
	}
	for _, must := range []polymq.Feature{polymq.FeatureRouting, polymq.FeatureUnroutable, polymq.FeatureConfirms} {
		if !f.Has(must) {
			e.Errorf("the feature %q is refused: no backend is without it", must)
		}
	}
	if f.Requeue != "first" && f.Requeue != "last" {
		e.Errorf("Features.Requeue is %q, want first or last", f.Requeue)
	}
	if f.Has(polymq.FeatureDedup) != (f.DedupWindow > 0) {
		e.Errorf("deduplication is declared as %q, with a window of %v", f.Support[polymq.FeatureDedup], f.DedupWindow)
	}
	if f.Has(polymq.FeatureDelay) != (f.DelayPrecision > 0) {
		e.Errorf("delays are declared as %q, with a precision of %v", f.Support[polymq.FeatureDelay], f.DelayPrecision)
	}
	if f.Has(polymq.FeatureMaxAttempts) && !f.Has(polymq.FeatureAttempts) {
		e.Errorf("attempts are limited but not counted")
	}
}

func inspects(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, "q")
	counts := func(what string, want polymq.QueueInfo) {
		e.Helper()
		var got polymq.QueueInfo
		defer func() {
			if got != want {
				e.Logf("%s: got %+v, want %+v", what, got, want)
			}
		}()
		e.eventually(what, func() bool {
			var err error
			got, err = other.Inspect(e.ctx, "q")
			e.must(err, "Inspect")
			return got == want
		})
	}
	counts("an empty queue", polymq.QueueInfo{})
	e.publish(c, "", numbered(10, "q", "")...)
	counts("ten messages", polymq.QueueInfo{Ready: 10})
	s := e.subscriber(c, "q", 4)
	ds := e.receiveN(s, 4)
	counts("four are held", polymq.QueueInfo{Ready: 6, Unsettled: 4, Consumers: 1})
	e.ack(ds[0])
	e.reject(ds[1])
	e.receiveN(s, 2)
	counts("two are settled, two more held", polymq.QueueInfo{Ready: 4, Unsettled: 4, Consumers: 1})
	two := e.subscriber(other, "q", 1)
	counts("a second subscriber", polymq.QueueInfo{Ready: 3, Unsettled: 5, Consumers: 2})
	e.close(s)
	e.close(two)
	counts("none holds any", polymq.QueueInfo{Ready: 8})
}

// purges removes what is ready and leaves what is held.
func purges(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, "q", "beside")
	purge := func(want int) {
		e.Helper()
		n, err := other.Purge(e.ctx, "q")
		e.must(err, "Purge")
		if n != want {
			e.Fatalf("Purge removed %d messages, want %d", n, want)
		}
	}
	purge(0)
	e.publish(c, "", numbered(10, "q", "")...)
	e.publish(c, "", msg("beside", "stays"))
	s := e.subscriber(c, "q", 3)
	ds := e.receiveN(s, 3)
	purge(7)
	e.ack(ds[0])
	e.nack(ds[1], 0)
	d := e.receive(s)
	if string(d.Body) != string(ds[1].Body) {
		e.Errorf("received %q after the Purge, want %q, which was held", d.Body, ds[1].Body)
	}
	e.ack(d)
	e.close(s)
	e.has(c, "q", string(ds[2].Body))
	e.publish(c, "", msg("q", "new"))
	if c.Features().Has(polymq.FeatureDelay) {
		e.publish(c, "", after("q", "late", time.Hour)) // it is not ready
	}
	purge(1)
	e.has(c, "q")
	e.has(c, "beside", "stays")
}
