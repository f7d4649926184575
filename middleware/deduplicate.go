package middleware

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/polymq/polymq"
)

// DedupStore remembers what was handled. NewMemoryDedup makes one for a process,
// package drivers/redis/dedup one that processes share. It must be safe for
// concurrent use, and every method atomic.
type DedupStore interface {
	// Claim gives key to owner for the time of lease, and returns zeros. Where
	// key is recorded as done, it says so; where another owner has it, it
	// returns how long that one's claim still lasts.
	Claim(ctx context.Context, key, owner string, lease time.Duration) (done bool, wait time.Duration, err error)
	// Extend makes the claim of owner last for lease from now. It does nothing
	// where owner has none.
	Extend(ctx context.Context, key, owner string, lease time.Duration) error
	// Done records that key was handled, for the time of keep, whoever has it.
	Done(ctx context.Context, key string, keep time.Duration) error
	// Release ends the claim of owner. It does nothing where owner has none.
	Release(ctx context.Context, key, owner string) error
}

// DedupOptions are the options of Deduplicate. nil means the defaults.
type DedupOptions struct {
	// Key is what makes two deliveries the same; those with "" are not
	// deduplicated. Default: the queue and the message's ID, since queues that
	// got copies of one message handle it each; of what DeadLetter moved the ID
	// before that; "" where there is no ID.
	Key func(*polymq.Delivery) string
	// Keep is how long it is remembered that a message was handled. Default:
	// 24 h.
	Keep time.Duration
	// Lease is for how long a message is claimed while its handler runs; it is
	// extended meanwhile. After the death of a process its messages are held
	// up for so long. At least 1 s. Default: 1 min.
	Lease time.Duration
	// Logger hears of a store that fails after the handler has succeeded.
	// Default: nothing is logged.
	Logger *slog.Logger
}

const (
	dedupKeep    = 24 * time.Hour
	dedupLease   = time.Minute
	dedupTimeout = 10 * time.Second // of what is told to the store after the handler
)

// Deduplicate is an idempotent receiver: a message whose handler has succeeded is
// acknowledged and not handled again, however often and by whomever it was
// published, delivered or redelivered, for as long as Keep, by all processes that
// share the store. One that another process is handling just now is nacked until
// that one's claim ends, to be settled by what came of it. To wait so counts as an
// attempt, and may be needed once more where a process died: leave room for it in the
// queue's MaxAttempts and in DeadLetter's.
//
// The record is made when the handler has returned nil, and not when it settled
// the delivery itself. A handler that fails leaves nothing, and the next attempt
// is handled. So this is what it cannot promise: a process that dies, or loses the
// store, between the handler's success and the record has its message handled
// again, and one that is paused for longer than Lease may find that another has
// handled it meanwhile. Only a handler that writes its result and the message's ID
// in one transaction of its own database has each exactly once.
//
// A store that does not answer before the handler is an error, and the message is
// nacked; after it, the message is acknowledged, for its work is done.
func Deduplicate(store DedupStore, opts *DedupOptions) polymq.Middleware {
	o := DedupOptions{}
	if opts != nil {
		o = *opts
	}
	if o.Key == nil {
		o.Key = queueAndID
	}
	if o.Keep <= 0 {
		o.Keep = dedupKeep
	}
	if o.Lease <= 0 {
		o.Lease = dedupLease
	}
	o.Lease = max(o.Lease, time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return func(next polymq.Handler) polymq.Handler {
		return func(ctx context.Context, d *polymq.Delivery) error {
			key := o.Key(d)
			if key == "" {
				return next(ctx, d)
			}
			owner := rand.Text()
			done, wait, err := store.Claim(ctx, key, owner, o.Lease)
			switch {
			case err != nil:
				return fmt.Errorf("deduplicate: the store does not answer: %w", err)
			case done:
				return nil
			case wait > 0:
				return polymq.RetryAfter(wait, errors.New("deduplicate: another process handles the message"))
			}
			return claimed(ctx, d, next, store, key, owner, &o)
		}
	}
}

func queueAndID(d *polymq.Delivery) string {
	if d.ID == "" {
		return ""
	}
	return d.Queue + "/" + firstID(d)
}

// claimed handles a message whose key is claimed.
func claimed(ctx context.Context, d *polymq.Delivery, next polymq.Handler, store DedupStore, key, owner string, o *DedupOptions) (err error) {
	k := &keeper{store: store, key: key, owner: owner, lease: o.Lease, ctx: ctx, log: o.Logger}
	k.start()
	succeeded := false
	defer func() {
		k.stop()
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), dedupTimeout)
		defer cancel()
		var failed error
		if succeeded {
			failed = store.Done(after, key, o.Keep)
		} else {
			failed = store.Release(after, key, owner)
		}
		if failed != nil {
			o.Logger.Warn("deduplicate: the store does not answer: the message may be handled again, or be held up", "key", key, "error", failed)
		}
	}()
	err = next(ctx, d)
	succeeded = err == nil && !d.Settled()
	return err
}

// keeper extends a claim while the handler runs.
type keeper struct {
	store      DedupStore
	key, owner string
	lease      time.Duration
	ctx        context.Context
	log        *slog.Logger

	mu      sync.Mutex // held while extending, so that stop waits for it
	stopped bool
	timer   *time.Timer
}

func (k *keeper) start() {
	k.mu.Lock() // its first call may come before timer is set
	defer k.mu.Unlock()
	k.timer = time.AfterFunc(k.lease/3, k.extend)
}

func (k *keeper) extend() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(k.ctx), k.lease/3)
	defer cancel()
	if err := k.store.Extend(ctx, k.key, k.owner, k.lease); err != nil {
		k.log.Warn("deduplicate: a claim could not be extended; trying again", "key", k.key, "error", err)
	}
	k.timer.Reset(k.lease / 3)
}

func (k *keeper) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped = true
	k.timer.Stop()
}
