package redis

import (
	"context"
	"errors"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/polymq/polymq/driver"
)

// probe is how often the watching connection is asked for a sign of life.
const probe = time.Second

// watch keeps a connection that hears of topology changes, and by whose life
// the state of the whole is judged.
type watch struct {
	s *store

	blocked bool // told so; of the goroutine alone

	mu      sync.Mutex
	changed []func(back bool)
}

func (w *watch) init(s *store) {
	w.s = s
	s.wg.Go(w.run)
}

func (s *store) WatchTopology(ctx context.Context, changed func(back bool)) error {
	if s.closed.Load() {
		return driver.ErrClosed
	}
	s.watch.mu.Lock()
	s.watch.changed = append(s.watch.changed, changed)
	s.watch.mu.Unlock()
	return nil
}

func (w *watch) call(back bool) {
	w.mu.Lock()
	fs := w.changed
	w.mu.Unlock()
	for _, f := range fs {
		f(back)
	}
}

func (w *watch) run() {
	connected := true // open has just spoken with the server
	for try := 0; ; try++ {
		err := w.listen(func() {
			try = 0
			back := !connected
			if back {
				connected, w.blocked = true, false
				w.s.clock.hurry()
				w.s.onState(driver.Connected, nil)
			}
			w.call(back)
		})
		if w.s.ctx.Err() != nil {
			return
		}
		w.s.servers.hurry()
		if connected {
			connected = false
			w.s.onState(driver.Disconnected, err)
		}
		select {
		case <-time.After(pause(try)):
		case <-w.s.ctx.Done():
			return
		}
	}
}

// listen subscribes and calls up once that stands; it returns when the
// connection is lost.
func (w *watch) listen(up func()) error {
	ctx := w.s.ctx
	n, err := w.s.at(w.s.namespace())
	if err != nil {
		return err
	}
	sub := n.client.Subscribe(ctx)
	defer sub.Close()
	// Subscribe does not wait for the end of ctx in a read: Close does it.
	defer context.AfterFunc(ctx, func() { _ = sub.Close() })()
	if err := sub.Subscribe(ctx, w.s.namespace()+":changed"); err != nil {
		return err
	}
	silent := time.Duration(0)
	for {
		w.tellFull()
		m, err := sub.ReceiveTimeout(ctx, probe)
		switch {
		case err == nil:
			silent = 0
			switch m.(type) {
			case *goredis.Subscription:
				up()
			case *goredis.Message:
				w.call(false)
			}
		case ctx.Err() != nil:
			return ctx.Err()
		case isTimeout(err):
			if silent += probe; silent > max(w.s.cfg.timeout, probe) {
				return err
			}
			if err := sub.Ping(ctx); err != nil {
				return err
			}
			if n.isClosed() {
				return errNowhere
			}
		default:
			return err
		}
	}
}

// tellFull tells that the server takes no writes, or takes them again.
func (w *watch) tellFull() {
	now := w.s.full.Load()
	switch {
	case now == w.blocked:
		return
	case now:
		w.s.onState(driver.Blocked, errors.New("the server takes no writes for now: its memory is full, or it cannot write to its disk"))
	default:
		w.s.onState(driver.Connected, nil)
	}
	w.blocked = now
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
