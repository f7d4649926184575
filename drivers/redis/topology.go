package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/routing"
)

// namespace is the prefix of the topology's keys.
func (s *store) namespace() string { return s.cfg.prefix + "}" }

func (s *store) LoadTopology(ctx context.Context, since emulate.Version) (emulate.Changes, error) {
	if s.unsure.Load() {
		if err := s.makeSure(ctx); err != nil {
			return emulate.Changes{}, err
		}
	}
	v, err := s.fcall(ctx, fnLoad, s.namespace(), random(8), since.Epoch, strconv.FormatUint(since.N, 10))
	if err != nil {
		return emulate.Changes{}, err
	}
	list, ok := v.([]any)
	if !ok || len(list) != 4 {
		return emulate.Changes{}, errAnswer(fnLoad, v)
	}
	var c emulate.Changes
	c.Version.Epoch, _ = list[0].(string)
	n, _ := list[1].(string)
	if c.Version.N, err = strconv.ParseUint(n, 10, 64); err != nil {
		return emulate.Changes{}, errAnswer(fnLoad, v)
	}
	c.Full = list[2] == int64(1)
	elements, _ := list[3].([]any)
	for i := 0; i+1 < len(elements); i += 2 {
		var e emulate.Element
		e.Name, _ = elements[i].(string)
		if data, ok := elements[i+1].(string); ok {
			e.Data = []byte(data)
		}
		c.Elements = append(c.Elements, e)
	}
	return c, nil
}

// makeSure writes something, and waits until that, and so all before it, is as safe
// as the URL wants: a change that was not when it was made may be read next.
func (s *store) makeSure(ctx context.Context) error {
	args := []any{"HSET", s.namespace() + ":version", "sure", "1"}
	_, err := s.retry(ctx, s.namespace(), func(n *node) (any, error) { return s.write(ctx, n, args) })
	if err == nil {
		s.unsure.Store(false)
	}
	return err
}

func errAnswer(fn string, v any) error {
	return fmt.Errorf("function %s of the library %s answered %.80v: is it another program's?", fn, libraryName, v)
}

func (s *store) ApplyTopology(ctx context.Context, at emulate.Version, elements []emulate.Element) (emulate.Version, error) {
	args := make([]any, 0, 6+3*len(elements))
	args = append(args, "FCALL", fnRemove, "1", s.namespace(), at.Epoch, strconv.FormatUint(at.N, 10))
	durable := false
	for _, e := range elements {
		if e.Data == nil {
			args = append(args, e.Name, "-", "")
			continue
		}
		args[1] = fnApply
		args = append(args, e.Name, "+", e.Data)
		durable = durable || isDurable(e.Data)
	}
	if durable {
		if err := s.checkDurability(ctx, s.namespace()); err != nil {
			return emulate.Version{}, err
		}
	}
	v, err := s.retry(ctx, s.namespace(), func(n *node) (any, error) {
		v, err := s.write(ctx, n, args)
		if lost(err) && !notSent(err) || partly(reply(err)) {
			// The next try would find the version changed by this one.
			err = fmt.Errorf("%w: %w", errOnce, err)
		}
		return v, err
	})
	n, _ := v.(int64)
	switch {
	case err == nil && n > 0:
		if args[1] == fnApply && s.cfg.find == nil {
			s.full.Store(false)
		}
		return emulate.Version{Epoch: at.Epoch, N: uint64(n)}, nil
	case err == nil:
		return emulate.Version{}, emulate.ErrStale
	case errors.Is(err, errOnce), errors.Is(err, driver.ErrClosed), ctx.Err() != nil:
		s.unsure.Store(!s.cfg.safe.none())
		return emulate.Version{}, unconfirmed(err)
	}
	return emulate.Version{}, err
}

// isDurable reports whether an element is a durable exchange or queue.
func isDurable(data []byte) bool {
	type kept struct {
		Transient bool `json:"transient"`
	}
	var e struct{ Exchange, Queue *kept }
	if json.Unmarshal(data, &e) != nil {
		return true
	}
	return e.Exchange != nil && !e.Exchange.Transient || e.Queue != nil && !e.Queue.Transient
}

// checkDurability refuses a server that forgets what it confirmed.
func (s *store) checkDurability(ctx context.Context, key string) error {
	if s.cfg.memory {
		return nil
	}
	v, err := s.call(ctx, key, "INFO", "persistence", "memory")
	if err != nil {
		return err
	}
	info, _ := v.(string)
	if field(info, "aof_enabled") != "1" {
		return fmt.Errorf("%w: this Redis has no append-only file and would forget durable exchanges and queues: set appendonly yes there, declare them Transient, or accept the loss with the URL option durability=memory",
			errors.ErrUnsupported)
	}
	if policy := field(info, "maxmemory_policy"); strings.HasPrefix(policy, "allkeys-") && field(info, "maxmemory") != "0" {
		return fmt.Errorf("%w: this Redis has the maxmemory-policy %s and would throw queues away when its memory is full: set noeviction there, or accept the loss with the URL option durability=memory",
			errors.ErrUnsupported, policy)
	}
	return nil
}

func (s *store) RenewLease(ctx context.Context, client string, v emulate.Version) error {
	args := []any{
		"FCALL", fnRenew, "1", s.namespace(), client, v.Epoch, strconv.FormatUint(v.N, 10),
		strconv.FormatInt((12 * emulate.LeaseTime).Milliseconds(), 10),
	}
	r, err := s.retry(ctx, s.namespace(), func(n *node) (any, error) { return s.write(ctx, n, args) })
	if err != nil {
		return err
	}
	s.lookForRoom(ctx)
	if r != int64(1) {
		return emulate.ErrStale
	}
	return nil
}

func (s *store) Leases(ctx context.Context) ([]emulate.Lease, time.Duration, error) {
	v, err := s.fcall(ctx, fnLeases, s.namespace())
	if err != nil {
		return nil, 0, err
	}
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return nil, 0, errAnswer(fnLeases, v)
	}
	since, ok := list[0].(int64)
	if !ok {
		return nil, 0, errAnswer(fnLeases, v)
	}
	var leases []emulate.Lease
	for i := 1; i+2 < len(list); i += 3 {
		var l emulate.Lease
		l.Client, _ = list[i].(string)
		l.Version.Epoch, _ = list[i+1].(string)
		n, _ := list[i+2].(string)
		l.Version.N, _ = strconv.ParseUint(n, 10, 64)
		leases = append(leases, l)
	}
	return leases, time.Duration(since) * time.Millisecond, nil
}

func (s *store) EndLease(ctx context.Context, client string) error {
	_, err := s.call(ctx, s.namespace(), "HDEL", s.namespace()+":leases", client)
	return err
}

func (s *store) CreateQueue(ctx context.Context, q *emulate.Queue) error {
	h := q.Handle.(*queue)
	if !q.Transient {
		if err := s.checkDurability(ctx, h.key); err != nil {
			return err
		}
	}
	args := []any{"FCALL", h.fns.create, "1", h.key}
	if hasRules(q) {
		args = append(args, q.MaxPriority, q.MaxLength, q.MaxBytes, flag(q.Overflow == routing.RejectPublish),
			flag(q.DeadLetterExchange != ""), flag(q.SingleActiveConsumer))
	}
	_, err := s.retry(ctx, h.key, func(n *node) (any, error) { return s.write(ctx, n, args) })
	return err
}

func (s *store) DeleteQueue(ctx context.Context, q *emulate.Queue, o emulate.DeleteOptions) error {
	h := q.Handle.(*queue)
	idle := (o.Idle + time.Millisecond - 1).Milliseconds()
	v, err := s.fcall(ctx, h.fns.delete, h.key, flag(o.IfUnused), flag(o.IfEmpty), idle)
	if err != nil {
		return err
	}
	if v != int64(1) {
		return fmt.Errorf("queue %q: %w", q.Name, driver.ErrInUse)
	}
	s.consumers.Range(func(k, _ any) bool {
		if c := k.(*consumer); c.key == h.key {
			c.queueGone()
		}
		return true
	})
	return nil
}

func (s *store) QueueExists(ctx context.Context, q *emulate.Queue) (bool, error) {
	key := q.Handle.(*queue).key
	v, err := s.call(ctx, key, "EXISTS", key)
	return v == int64(1), err
}

func (s *store) Inspect(ctx context.Context, q *emulate.Queue) (driver.QueueInfo, error) {
	h := q.Handle.(*queue)
	v, err := s.fcall(ctx, h.fns.inspect, h.key)
	if err != nil {
		return driver.QueueInfo{}, err
	}
	list, _ := v.([]any)
	if len(list) != 3 {
		return driver.QueueInfo{}, emulate.ErrGone
	}
	n := func(i int) int { v, _ := list[i].(int64); return int(v) }
	return driver.QueueInfo{Ready: n(0), Unsettled: n(1), Consumers: n(2)}, nil
}

// Purge removes what is there when it begins in parts, since one call for all of a
// long queue would hold up everybody.
func (s *store) Purge(ctx context.Context, q *emulate.Queue) (n int, err error) {
	h := q.Handle.(*queue)
	for to := ""; ; {
		v, err := s.fcall(ctx, h.fns.purge, h.key, to, purgePart)
		if err != nil {
			return n, err
		}
		list, _ := v.([]any)
		if len(list) != 2 {
			return n, emulate.ErrGone
		}
		removed, _ := list[0].(int64)
		n += int(removed)
		if to, _ = list[1].(string); to == "" {
			return n, nil
		}
	}
}

// purgePart is how many messages one call removes at most.
const purgePart = 5000

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}
