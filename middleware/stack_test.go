package middleware_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/middleware"
)

// collect is a PublishFunc that keeps what is published, or fails.
func collect(to *[]*polymq.Message, err error) polymq.PublishFunc {
	return func(_ context.Context, msgs ...*polymq.Message) error {
		if err == nil {
			*to = append(*to, msgs...)
		}
		return err
	}
}

func TestDeadLetter(t *testing.T) {
	var dead []*polymq.Message
	calls := 0
	cause := polymq.Permanent(errors.New("no such customer"))
	h := polymq.Chain(script(&calls, cause), middleware.DeadLetter(collect(&dead, nil), nil))
	d := delivery()
	d.TTL, d.UserID = 90*time.Millisecond, "guest"
	d.Header["CC"] = []any{"other"}
	if err := h(t.Context(), d); err != nil || len(dead) != 1 {
		t.Fatalf("%v, %d dead letters", err, len(dead))
	}
	m := dead[0]
	if m.ID != "id-1/billing/1" || m.Header[middleware.HeaderFirstID] != "id-1" || m.Key != "order.paid" || string(m.Body) != "secret body" || m.Header["h"] != "secret header" || m.TTL != 0 || m.UserID != "" ||
		m.Header[polymq.HeaderError] != "no such customer" || m.Header[middleware.HeaderStack] != nil {
		t.Errorf("%+v", m)
	}
	deaths := (&polymq.Delivery{Message: m}).Deaths()
	if len(deaths) != 1 || deaths[0].Queue != "billing" || deaths[0].Reason != "rejected" || deaths[0].Count != 1 || deaths[0].Exchange != "orders" ||
		strings.Join(deaths[0].Keys, " ") != "order.paid other" || deaths[0].TTL != 90*time.Millisecond || time.Since(deaths[0].Time) > time.Hour {
		t.Errorf("%+v", deaths)
	}
	if d.Header["x-death"] != nil || d.TTL == 0 {
		t.Error("the delivery was changed")
	}

	// It dies again, each time under another ID.
	for n := 2; n <= 3; n++ {
		again := delivery()
		again.Message = m
		if err := h(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		m = dead[len(dead)-1]
		deaths = (&polymq.Delivery{Message: m}).Deaths()
		if m.ID != fmt.Sprintf("id-1/billing/%d", n) || m.Header[middleware.HeaderFirstID] != "id-1" || len(deaths) != 1 || deaths[0].Count != n {
			t.Errorf("death %d: ID %q, %+v", n, m.ID, deaths)
		}
	}
}

func TestDeadLetterDecides(t *testing.T) {
	for name, c := range map[string]struct {
		err     error
		attempt int
		publish error
		dead    bool
		want    func(error) bool
	}{
		"success":       {nil, 9, nil, false, func(err error) bool { return err == nil }},
		"passing":       {io.EOF, 2, nil, false, func(err error) bool { return err == io.EOF }},
		"last attempt":  {io.EOF, 3, nil, true, func(err error) bool { return err == nil }},
		"not confirmed": {polymq.Permanent(io.EOF), 1, polymq.ErrUnroutable, false, func(err error) bool { return errors.Is(err, polymq.ErrUnroutable) && !polymq.IsPermanent(err) }},
	} {
		t.Run(name, func(t *testing.T) {
			var dead []*polymq.Message
			calls := 0
			h := polymq.Chain(script(&calls, c.err), middleware.DeadLetter(collect(&dead, c.publish), &middleware.DeadLetterOptions{MaxAttempts: 3, Key: "grave"}))
			d := delivery()
			d.Attempt = c.attempt
			if err := h(t.Context(), d); !c.want(err) {
				t.Errorf("%v", err)
			}
			if (len(dead) == 1) != c.dead || c.dead && dead[0].Key != "grave" {
				t.Errorf("dead letters %v", dead)
			}
		})
	}
}

func TestDeadLetterHasTheStack(t *testing.T) {
	var dead []*polymq.Message
	h := polymq.Chain(func(context.Context, *polymq.Delivery) error { panic(strings.Repeat("ä", 5000)) },
		middleware.DeadLetter(collect(&dead, nil), &middleware.DeadLetterOptions{MaxAttempts: 1}), middleware.Recover())
	if err := h(t.Context(), delivery()); err != nil {
		t.Fatal(err)
	}
	stack, _ := dead[0].Header.String(middleware.HeaderStack)
	text, _ := dead[0].Header.String(polymq.HeaderError)
	if !strings.Contains(stack, "TestDeadLetterHasTheStack") || len(text) > 4<<10 || len(text) < 4000 || !strings.HasSuffix(text, "ä") {
		t.Errorf("%d bytes of an error, stack %s", len(text), stack)
	}
}

func TestDeduplicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		store := middleware.NewMemoryDedup(2)
		h := polymq.Chain(script(&calls, io.EOF, nil), middleware.Deduplicate(store, &middleware.DedupOptions{Keep: time.Hour}))
		for i, want := range []error{io.EOF, nil, nil, nil} {
			if err := h(t.Context(), delivery()); err != want {
				t.Errorf("call %d: %v", i, err)
			}
		}
		if calls != 2 {
			t.Errorf("%d calls: a failure is to be tried again, a success not", calls)
		}
		other := delivery()
		other.Queue = "shipping"
		none := delivery()
		none.ID = ""
		for range 2 {
			_ = h(t.Context(), other)
			_ = h(t.Context(), none)
		}
		if calls != 5 {
			t.Errorf("%d calls: another queue once, one without an ID each time", calls)
		}
		time.Sleep(time.Hour)
		_ = h(t.Context(), delivery())
		if calls != 6 || store.Len() != 1 {
			t.Errorf("%d calls, %d kept after the time to keep", calls, store.Len())
		}
	})
}

// A claim lasts while the handler runs, and holds others off.
func TestDeduplicateClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		h := polymq.Chain(func(context.Context, *polymq.Delivery) error {
			calls++
			time.Sleep(10 * time.Minute)
			return nil
		}, middleware.Deduplicate(middleware.NewMemoryDedup(0), nil))
		first := make(chan error, 1)
		go func() { first <- h(t.Context(), delivery()) }()
		for range 9 {
			time.Sleep(time.Minute)
			err := h(t.Context(), delivery())
			if wait, ok := polymq.RetryDelay(err); !ok || wait <= 0 || wait > time.Minute {
				t.Errorf("beside another: %v %v", wait, err)
			}
		}
		if err := <-first; err != nil {
			t.Error(err)
		}
		if err := h(t.Context(), delivery()); err != nil || calls != 1 {
			t.Errorf("%v, %d calls", err, calls)
		}
	})
}

func TestMemoryDedupIsBounded(t *testing.T) {
	s := middleware.NewMemoryDedup(10)
	for i := range 100 {
		if err := s.Done(t.Context(), fmt.Sprint(i), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	done, _, _ := s.Claim(t.Context(), "99", "me", time.Hour)
	old, _, _ := s.Claim(t.Context(), "1", "me", time.Hour)
	if s.Len() != 10 || !done || old {
		t.Errorf("%d kept, the last %v, an old one %v", s.Len(), done, old)
	}
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		h := polymq.Chain(script(&calls, nil), middleware.Throttle(rate.NewLimiter(10, 1)))
		began := time.Now()
		for range 11 {
			if err := h(t.Context(), delivery()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != time.Second || calls != 11 {
			t.Errorf("%d calls in %v", calls, took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if delay, ok := polymq.RetryDelay(h(ctx, delivery())); !ok || delay != 0 || calls != 11 {
			t.Errorf("with an ended ctx: %v %v", delay, ok)
		}
		short, end := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer end()
		if delay, ok := polymq.RetryDelay(h(short, delivery())); !ok || delay != 100*time.Millisecond || calls != 11 {
			t.Errorf("with a ctx that ends before there is a place: %v %v", delay, ok)
		}

		var sent []*polymq.Message
		p := middleware.ThrottlePublish(rate.NewLimiter(10, 2))(collect(&sent, nil))
		began = time.Now()
		if err := p(t.Context(), make([]*polymq.Message, 12)...); err != nil || len(sent) != 12 || time.Since(began) != time.Second {
			t.Errorf("%v, %d sent in %v", err, len(sent), time.Since(began))
		}
		if err := p(ctx, make([]*polymq.Message, 1)...); err == nil || len(sent) != 12 {
			t.Errorf("with an ended ctx: %v, %d sent", err, len(sent))
		}
	})
}

func TestCorrelate(t *testing.T) {
	var sent []*polymq.Message
	p := middleware.CorrelatePublish()(collect(&sent, nil))
	plain, own := &polymq.Message{}, &polymq.Message{CorrelationID: "own"}
	h := polymq.Chain(func(ctx context.Context, _ *polymq.Delivery) error { return p(ctx, plain, own, nil) }, middleware.Correlate())
	d := delivery()
	if err := errors.Join(p(t.Context(), plain), h(t.Context(), d)); err != nil {
		t.Fatal(err)
	}
	d.CorrelationID = "order 7"
	if err := h(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, m := range sent {
		if m != nil {
			got += m.CorrelationID + ","
		}
	}
	if got != ",id-1,own,order 7,own," || plain.CorrelationID != "" {
		t.Errorf("%s; the message has %q", got, plain.CorrelationID)
	}
}

func TestCompress(t *testing.T) {
	var sent []*polymq.Message
	p := middleware.Compress(middleware.Gzip, &middleware.CompressOptions{MinBytes: 100})(collect(&sent, nil))
	long := bytes.Repeat([]byte("sweep "), 100)
	in := []*polymq.Message{{Body: long}, {Body: []byte("short")}, {Body: long, ContentEncoding: "br"}, nil}
	if err := p(t.Context(), in...); err != nil {
		t.Fatal(err)
	}
	if sent[0].ContentEncoding != "gzip" || len(sent[0].Body) >= len(long) || sent[1] != in[1] || sent[2] != in[2] || in[0].ContentEncoding != "" {
		t.Errorf("%+v", sent)
	}
	again := func(body []byte, times int) []byte {
		for range times {
			var err error
			if body, err = middleware.Gzip.Compress(body); err != nil {
				t.Fatal(err)
			}
		}
		return body
	}
	twice := again(sent[0].Body, 1)
	for name, c := range map[string]struct {
		encoding string
		body     []byte
		max      int
		ok       bool
		left     string
	}{
		"gzip":         {"gzip", sent[0].Body, 0, true, ""},
		"any case":     {" GZIP", sent[0].Body, 0, true, ""},
		"twice":        {"gzip, identity,gzip", twice, 0, true, ""},
		"four times":   {"identity,gzip,gzip,identity,gzip,gzip", again(twice, 2), 0, true, ""},
		"five times":   {"gzip,gzip,gzip,gzip,gzip", again(twice, 3), 0, false, ""},
		"five unknown": {"gzip,gzip,gzip,gzip,br", long, 0, true, "gzip,gzip,gzip,gzip,br"},
		"unknown":      {"utf-8", long, 0, true, "utf-8"},
		"unknown last": {"gzip,br", long, 0, true, "gzip,br"},
		"unknown next": {"br,gzip", sent[0].Body, 0, true, "br"},
		"garbled":      {"gzip", long, 0, false, ""},
		"cut off":      {"gzip", sent[0].Body[:len(sent[0].Body)-1], 0, false, ""},
		"just enough":  {"gzip", sent[0].Body, len(long), true, ""},
		"too long":     {"gzip", sent[0].Body, len(long) - 1, false, ""},
		"no limit":     {"gzip", sent[0].Body, math.MaxInt, true, ""},
	} {
		d := delivery()
		d.Body, d.ContentEncoding = c.body, c.encoding
		came, called := d.Message, false
		h := polymq.Chain(func(_ context.Context, d *polymq.Delivery) error {
			called = true
			if !bytes.Equal(d.Body, long) || d.ContentEncoding != c.left {
				t.Errorf("%s: %d bytes, encoding %q", name, len(d.Body), d.ContentEncoding)
			}
			return nil
		}, middleware.Decompress(&middleware.DecompressOptions{MaxBytes: c.max}))
		err := h(t.Context(), d)
		if called != c.ok || (err == nil) != c.ok || !c.ok && !polymq.IsPermanent(err) || d.Message != came {
			t.Errorf("%s: called %v, %v", name, called, err)
		}
		long := name == "too long"
		if errors.Is(err, polymq.ErrTooLarge) != long || errors.Is(err, polymq.ErrUndecodable) != (!c.ok && !long) {
			t.Errorf("%s: %v, want ErrTooLarge of what is too long and ErrUndecodable of all else", name, err)
		}
	}
}

// A few bytes that are a gigabyte are refused before they are one.
func TestDecompressBomb(t *testing.T) {
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	zeros := make([]byte, 1<<20)
	for range 128 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	d := delivery()
	d.Body, d.ContentEncoding = bomb.Bytes(), "gzip"
	calls := 0
	err := polymq.Chain(script(&calls, nil), middleware.Decompress(nil))(t.Context(), d)
	if !errors.Is(err, polymq.ErrTooLarge) || !polymq.IsPermanent(err) || calls != 0 {
		t.Errorf("%v, %d calls", err, calls)
	}
}
