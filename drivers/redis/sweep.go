package redis

import (
	"context"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

func (s *store) Sweep(ctx context.Context, q *emulate.Queue, max int) (emulate.Swept, error) {
	h := q.Handle.(*queue)
	a, err := s.raw(ctx, h.key,
		"FCALL", h.fns.sweep, "1", h.key, max, q.TTL.Milliseconds(), flag(ownTTL(q)), flag(q.DeadLetterExchange != ""),
		s.cfg.lease.Milliseconds())
	if err != nil {
		return emulate.Swept{}, err
	}
	if a.next() == ':' {
		return emulate.Swept{}, emulate.ErrGone
	}
	return a.swept(q.Name)
}

// ownTTL reports whether the TTL of messages counts in the queue.
func ownTTL(q *emulate.Queue) bool {
	return !q.Over(&driver.Message{TTL: time.Millisecond}, time.UnixMilli(0)).IsZero()
}

// swept reads what the function sweep answered.
func (a *answer) swept(queue string) (emulate.Swept, error) {
	var s emulate.Swept
	a.array()
	s.More = a.integer() == 1
	if next := a.integer(); next > 0 {
		s.Next = time.UnixMilli(next)
	}
	s.Empty = a.integer() == 1
	reasons := make([]emulate.Reason, a.array())
	for i := range reasons {
		reasons[i] = emulate.Reason(a.text())
	}
	counts := make([]int, a.array())
	for i := range counts {
		counts[i] = int(a.integer())
	}
	var r fetch
	r.takeAll(a, counts)
	if a.err == nil && len(r.ds) != len(reasons) {
		a.fail()
	}
	if a.err != nil {
		return emulate.Swept{}, a.err
	}
	for i, d := range r.ds {
		d.Queue, d.Reason = queue, reasons[i]
	}
	s.Dead = r.ds
	return s, nil
}

func (s *store) Drop(ctx context.Context, q *emulate.Queue, ds []*emulate.Delivery) error {
	if len(ds) == 0 {
		return nil
	}
	h := q.Handle.(*queue)
	var args []any
	for _, d := range ds {
		args = append(args, d.Ref.(*hold).id)
	}
	_, err := s.fcall(ctx, h.fns.drop, h.key, args...)
	return err
}

func (s *store) Usage(ctx context.Context, q *emulate.Queue) (emulate.Usage, error) {
	h := q.Handle.(*queue)
	v, err := s.fcall(ctx, h.fns.usage, h.key)
	if err != nil {
		return emulate.Usage{}, err
	}
	list, _ := v.([]any)
	if len(list) != 3 {
		return emulate.Usage{}, emulate.ErrGone
	}
	n := func(i int) int64 { v, _ := list[i].(int64); return v }
	return emulate.Usage{Consumers: int(n(0)), Used: n(1) == 1, Idle: time.Duration(n(2)) * time.Millisecond}, nil
}

func (s *store) Touch(ctx context.Context, q *emulate.Queue) error {
	h := q.Handle.(*queue)
	v, err := s.fcall(ctx, h.fns.touch, h.key)
	if err == nil && v != int64(1) {
		return emulate.ErrGone
	}
	return err
}

func (s *store) Lead(ctx context.Context, client string, term time.Duration) (bool, error) {
	v, err := s.fcall(ctx, fnLead, s.namespace(), client, strconv.FormatInt(term.Milliseconds(), 10))
	return v == int64(1), err
}

// sink is where a raw answer is collected.
type sink struct{ b []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

// ReadFrom spares the client a buffer for each string of an answer.
func (s *sink) ReadFrom(r io.Reader) (int64, error) {
	for n := int64(0); ; {
		l, ok := r.(*io.LimitedReader)
		if ok && l.N == 0 {
			return n, nil
		}
		want := 512
		if ok {
			want = int(min(l.N, 1<<20))
		}
		s.b = slices.Grow(s.b, want)
		k, err := r.Read(s.b[len(s.b) : len(s.b)+want])
		s.b = s.b[:len(s.b)+k]
		n += int64(k)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
