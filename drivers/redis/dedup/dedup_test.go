package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/polymq/polymq"
	_ "github.com/polymq/polymq/drivers/redis"
	"github.com/polymq/polymq/drivers/redis/dedup"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/middleware"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

var _ middleware.DedupStore = (*dedup.Store)(nil)

func TestStore(t *testing.T) {
	ctx := t.Context()
	conn, err := polymq.Open(ctx, testbroker.URL(t, "redis"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	client := conn.Native().(redis.UniversalClient)
	name := t.Name() + fmt.Sprint(time.Now().UnixNano())
	s, other := dedup.New(client, name), dedup.New(client, name)
	defer client.Del(ctx, "polymq-dedup:"+name+":a", "polymq-dedup:"+name+":b")
	claim := func(s *dedup.Store, key, owner string, wantDone, wantWait bool) {
		t.Helper()
		done, wait, err := s.Claim(ctx, key, owner, time.Minute)
		if err != nil || done != wantDone || (wait > 0) != wantWait || wait > time.Minute {
			t.Errorf("claim of %s by %s: %v %v %v", key, owner, done, wait, err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	claim(s, "a", "1", false, false)
	claim(s, "a", "1", false, false) // again, since the answer got lost
	claim(other, "a", "2", false, true)
	claim(other, "b", "2", false, false)
	must(other.Release(ctx, "a", "2")) // not its own
	claim(other, "a", "2", false, true)
	must(s.Release(ctx, "a", "1"))
	claim(other, "a", "2", false, false)
	must(other.Done(ctx, "a", time.Hour))
	claim(s, "a", "1", true, false)
	must(s.Release(ctx, "a", "2"))
	must(s.Extend(ctx, "a", "2", time.Millisecond))
	claim(s, "a", "1", true, false)

	// What is extended stays, what is not is free again.
	must(other.Extend(ctx, "b", "2", time.Hour))
	if left := client.PTTL(ctx, "polymq-dedup:"+name+":b").Val(); left < 59*time.Minute {
		t.Errorf("the claim lasts for %v", left)
	}
	must(other.Extend(ctx, "b", "2", time.Millisecond))
	for {
		if _, wait, err := s.Claim(ctx, "b", "1", time.Minute); err != nil || wait == 0 {
			must(err)
			break
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for _, err := range []error{second(s.Claim(ended, "a", "1", time.Minute)), s.Extend(ended, "a", "1", 1), s.Done(ended, "a", 1), s.Release(ended, "a", "1")} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("with an ended ctx: %v", err)
		}
	}
}

// What stores of two names remember is not mixed up, whatever is in the names and the keys.
func TestStoresApart(t *testing.T) {
	ctx := t.Context()
	conn, err := polymq.Open(ctx, testbroker.URL(t, "redis"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	client := conn.Native().(redis.UniversalClient)
	unique := fmt.Sprint(time.Now().UnixNano())
	for _, pair := range [][2]struct{ name, key string }{
		{{"a", "b:c"}, {"a:b", "c"}},
		{{"a", ":b"}, {"a:", "b"}},
		{{"a:b", "d"}, {"a%3Ab", "d"}},
		{{"", "a:b"}, {":a", "b"}},
	} {
		for i, at := range pair {
			name := unique + at.name
			s := dedup.New(client, name)
			if done, wait, err := s.Claim(ctx, at.key, fmt.Sprint(i), time.Minute); done || wait > 0 || err != nil {
				t.Errorf("%q in %q meets what is in %q: done %v, wait %v, %v", at.key, at.name, pair[1-i].name, done, wait, err)
			}
			if err := s.Done(ctx, at.key, time.Minute); err != nil {
				t.Error(err)
			}
		}
	}
}

func second(_ bool, _ time.Duration, err error) error { return err }
