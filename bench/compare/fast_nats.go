package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// fastNATS does by hand what the jetstream package does: reply subjects made
// beforehand under one subscription, in place of futures, and messages that are
// not wrapped.
type fastNATS struct {
	jetStreams
	inbox string
	free  chan *natsSlot
	slots []*natsSlot
}

// natsSlot is a message on its way.
type natsSlot struct {
	reply  string
	header natsgo.Header
	id     [1]string
	left   int        // of its queues, to confirm it
	done   chan error // cap 1
}

func openFastNATS(ctx context.Context, s setup) (contender, error) {
	f := &fastNATS{}
	if err := f.open(ctx, s, "fast"); err != nil {
		return nil, err
	}
	f.inbox = f.nc.NewInbox() + "."
	f.free = make(chan *natsSlot, maxWindow)
	for i := range maxWindow {
		sl := &natsSlot{reply: f.inbox + strconv.Itoa(i), done: make(chan error, 1)}
		sl.header = natsgo.Header{"Nats-Msg-Id": sl.id[:]}
		f.slots = append(f.slots, sl)
		f.free <- sl
	}
	sub, err := f.nc.Subscribe(f.inbox+"*", f.answer)
	if err == nil {
		err = sub.SetPendingLimits(-1, -1)
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *fastNATS) answer(m *natsgo.Msg) {
	i, err := strconv.Atoi(m.Subject[len(f.inbox):])
	if err != nil {
		return
	}
	sl := f.slots[i]
	if !bytes.HasPrefix(m.Data, []byte(`{"stream":`)) {
		sl.done <- fmt.Errorf("not confirmed: %s", m.Data)
		return
	}
	if sl.left--; sl.left == 0 { // the subscription's goroutine alone counts
		sl.done <- nil
	}
}

func (f *fastNATS) send(body []byte) (*natsSlot, error) {
	sl := <-f.free
	sl.id[0], sl.left = nextID(), len(f.subjects)
	for _, subject := range f.subjects {
		if err := f.nc.PublishMsg(&natsgo.Msg{Subject: subject, Reply: sl.reply, Header: sl.header, Data: body}); err != nil {
			return nil, err
		}
	}
	return sl, nil
}

func (f *fastNATS) wait(sl *natsSlot) error {
	err := <-sl.done
	f.free <- sl
	return err
}

func (f *fastNATS) publish(ctx context.Context, l load, n int, body []byte) error {
	return l.spread(n, func(n int) error {
		for range n {
			sl, err := f.send(body)
			if err != nil {
				return err
			}
			if err := f.wait(sl); err != nil {
				return err
			}
		}
		return nil
	}, func(n int) error {
		pending := make([]*natsSlot, l.window)
		for i := range n + l.window {
			if sl := pending[i%l.window]; sl != nil {
				if err := f.wait(sl); err != nil {
					return err
				}
			}
			if pending[i%l.window] = nil; i < n {
				sl, err := f.send(body)
				if err != nil {
					return err
				}
				pending[i%l.window] = sl
			}
		}
		return nil
	})
}

// consume has one request open and asks for more when half of it is here.
func (f *fastNATS) consume(ctx context.Context, each func([]byte) bool) (time.Time, error) {
	messages := make(chan *natsgo.Msg, 4*prefetch)
	inbox := f.nc.NewInbox()
	sub, err := f.nc.ChanSubscribe(inbox, messages)
	if err != nil {
		return time.Time{}, err
	}
	defer sub.Unsubscribe()
	next := "$JS.API.CONSUMER.MSG.NEXT." + f.subjects[0] + "." + natsConsumer
	ask := func(n int) error {
		return f.nc.PublishRequest(next, inbox, fmt.Appendf(nil, `{"batch":%d,"expires":%d}`, n, 30*time.Second))
	}
	if err := ask(prefetch); err != nil {
		return time.Time{}, err
	}
	for got, more := 0, true; more; {
		var m *natsgo.Msg
		select {
		case m = <-messages:
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
		if m.Reply == "" {
			return time.Time{}, errors.New(m.Header.Get("Description"))
		}
		more = each(m.Data)
		if err := f.nc.Publish(m.Reply, []byte("+ACK")); err != nil {
			return time.Time{}, err
		}
		if got++; got == prefetch/2 && more {
			got = 0
			if err := ask(prefetch / 2); err != nil {
				return time.Time{}, err
			}
		}
	}
	err = f.nc.Flush()
	return time.Now(), err
}
