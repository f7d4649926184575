// Package dedup has a middleware.DedupStore in Redis, which processes share.
//
//	store := dedup.New(redis.NewClient(&redis.Options{Addr: "localhost:6379"}), "billing")
//	opts := &polymq.SubscriberOptions{Middleware: []polymq.Middleware{middleware.Deduplicate(store, nil)}}
//
// It serves subscribers on any backend. On a polymq connection to Redis,
// conn.Native() is such a client.
package dedup

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Store is a middleware.DedupStore. Each message is a key of its own that expires,
// about 150 bytes; a key is on one server, so that a cluster will do. What Redis
// loses or evicts is forgotten: the message would be handled again. It is safe for
// concurrent use.
type Store struct {
	client redis.UniversalClient
	prefix string
}

// New makes a store. What begins with "polymq-dedup:", name and ":" is its own;
// stores of one name remember together. In the name, ":" is written as %3A, and %
// as %25. The client stays the caller's to close.
func New(client redis.UniversalClient, name string) *Store {
	return &Store{client, "polymq-dedup:" + escaper.Replace(name) + ":"}
}

// The first ":" after the name is the one that ends it, whatever the message's key
// begins with.
var escaper = strings.NewReplacer("%", "%25", ":", "%3A")

// A key holds "done", or "claim:" and the owner. A step that is repeated since its
// answer got lost does no harm.
var (
	claim = redis.NewScript(`
local v = redis.call('GET', KEYS[1])
if v == 'done' then return -1 end
if v and v ~= 'claim:' .. ARGV[1] then return math.max(redis.call('PTTL', KEYS[1]), 1) end
redis.call('SET', KEYS[1], 'claim:' .. ARGV[1], 'PX', ARGV[2])
return 0`)
	extend = redis.NewScript(`
if redis.call('GET', KEYS[1]) == 'claim:' .. ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0`)
	release = redis.NewScript(`
if redis.call('GET', KEYS[1]) == 'claim:' .. ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0`)
)

// Claim implements middleware.DedupStore.
func (s *Store) Claim(ctx context.Context, key, owner string, lease time.Duration) (done bool, wait time.Duration, err error) {
	left, err := claim.Run(ctx, s.client, []string{s.prefix + key}, owner, milliseconds(lease)).Int64()
	if err != nil {
		return false, 0, fmt.Errorf("redis: claim %q: %w", key, err)
	}
	return left < 0, max(time.Duration(left)*time.Millisecond, 0), nil
}

// Extend implements middleware.DedupStore.
func (s *Store) Extend(ctx context.Context, key, owner string, lease time.Duration) error {
	if err := extend.Run(ctx, s.client, []string{s.prefix + key}, owner, milliseconds(lease)).Err(); err != nil {
		return fmt.Errorf("redis: extend the claim of %q: %w", key, err)
	}
	return nil
}

// Done implements middleware.DedupStore.
func (s *Store) Done(ctx context.Context, key string, keep time.Duration) error {
	if err := s.client.Set(ctx, s.prefix+key, "done", max(keep, time.Millisecond)).Err(); err != nil {
		return fmt.Errorf("redis: record %q: %w", key, err)
	}
	return nil
}

// Release implements middleware.DedupStore.
func (s *Store) Release(ctx context.Context, key, owner string) error {
	if err := release.Run(ctx, s.client, []string{s.prefix + key}, owner).Err(); err != nil {
		return fmt.Errorf("redis: release %q: %w", key, err)
	}
	return nil
}

func milliseconds(d time.Duration) int64 { return max(d.Milliseconds(), 1) }
