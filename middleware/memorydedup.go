package middleware

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// MemoryDedup is a DedupStore of one process, which forgets when that ends. It has
// no goroutine.
type MemoryDedup struct {
	size int

	mu      sync.Mutex
	entries map[string]*list.Element // of *dedupEntry
	done    *list.List               // recorded, oldest first
	claims  *list.List
}

type dedupEntry struct {
	key   string
	owner string // "" when done
	until time.Time
}

// NewMemoryDedup makes a store that remembers size messages; with more it forgets
// the oldest before their time. 0 means 100,000, which take about 20 MB.
// What is being handled is not counted.
func NewMemoryDedup(size int) *MemoryDedup {
	if size <= 0 {
		size = 100_000
	}
	return &MemoryDedup{size: size, entries: map[string]*list.Element{}, done: list.New(), claims: list.New()}
}

// Claim implements DedupStore.
func (s *MemoryDedup) Claim(_ context.Context, key, owner string, lease time.Duration) (done bool, wait time.Duration, err error) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(now)
	if e := s.entries[key]; e != nil {
		entry := e.Value.(*dedupEntry)
		switch left := entry.until.Sub(now); {
		case left <= 0:
			s.drop(e)
		case entry.owner == "":
			return true, 0, nil
		default:
			return false, left, nil
		}
	}
	s.entries[key] = s.claims.PushBack(&dedupEntry{key, owner, now.Add(lease)})
	return false, 0, nil
}

// Extend implements DedupStore.
func (s *MemoryDedup) Extend(_ context.Context, key, owner string, lease time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.owned(key, owner); e != nil {
		e.Value.(*dedupEntry).until = time.Now().Add(lease)
	}
	return nil
}

// Done implements DedupStore.
func (s *MemoryDedup) Done(_ context.Context, key string, keep time.Duration) error {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil {
		s.drop(e)
	}
	s.entries[key] = s.done.PushBack(&dedupEntry{key, "", now.Add(keep)})
	s.forget(now)
	return nil
}

// Release implements DedupStore.
func (s *MemoryDedup) Release(_ context.Context, key, owner string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.owned(key, owner); e != nil {
		s.drop(e)
	}
	return nil
}

// Len is how many messages it remembers as handled.
func (s *MemoryDedup) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(time.Now())
	return s.done.Len()
}

func (s *MemoryDedup) owned(key, owner string) *list.Element {
	if e := s.entries[key]; e != nil && e.Value.(*dedupEntry).owner == owner {
		return e
	}
	return nil
}

func (s *MemoryDedup) drop(e *list.Element) {
	entry := e.Value.(*dedupEntry)
	delete(s.entries, entry.key)
	if entry.owner == "" {
		s.done.Remove(e)
	} else {
		s.claims.Remove(e)
	}
}

// forget drops what is over or too much. Where keeps differ, what ended behind
// something that did not yet waits for it, or for its key to be asked for.
func (s *MemoryDedup) forget(now time.Time) {
	for e := s.done.Front(); e != nil && (s.done.Len() > s.size || !e.Value.(*dedupEntry).until.After(now)); e = s.done.Front() {
		s.drop(e)
	}
}
