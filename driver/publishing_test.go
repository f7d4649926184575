package driver_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/polymq/polymq/driver"
)

type counter struct{ n atomic.Int32 }

func (c *counter) Resolved(p *driver.Publishing) {
	if !p.Resolved() {
		panic("told of an outcome that is not there")
	}
	c.n.Add(1)
}

func TestPublishingIsResolvedOnce(t *testing.T) {
	owner := &counter{}
	p := &driver.Publishing{Owner: owner}
	for round := range 100 {
		p.Reset(&driver.Message{}, "id")
		if p.Resolved() || p.Err() != nil {
			t.Fatal("an outcome before there is one")
		}
		outcomes := []error{nil, driver.ErrRejected, driver.ErrUnconfirmed}
		var won atomic.Int32
		won.Store(-1)
		var wg sync.WaitGroup
		for i, err := range outcomes {
			wg.Go(func() {
				if p.Resolve(err) && !won.CompareAndSwap(-1, int32(i)) {
					t.Error("two outcomes")
				}
			})
		}
		wg.Wait()
		if i := won.Load(); i < 0 || !errors.Is(p.Err(), outcomes[i]) && p.Err() != outcomes[i] || !p.Resolved() {
			t.Fatalf("outcome %d, error %v", i, p.Err())
		}
		if owner.n.Load() != int32(round+1) {
			t.Fatalf("the owner was told %d times in %d rounds", owner.n.Load(), round+1)
		}
	}
}

func TestFeaturesHas(t *testing.T) {
	f := driver.Features{Support: map[driver.Feature]driver.Support{driver.TTL: driver.Native, driver.Delay: driver.Emulated, driver.Purge: driver.Refused}}
	for name, want := range map[driver.Feature]bool{driver.TTL: true, driver.Delay: true, driver.Purge: false, driver.Inspect: false} {
		if f.Has(name) != want {
			t.Errorf("Has(%s) is %v", name, !want)
		}
	}
}
