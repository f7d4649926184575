package polymq_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
)

func TestReceipt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.publish = func(ctx context.Context, batch []*driver.Publishing, wait bool) {
			if wait {
				t.Error("PublishAsync asked the driver to wait")
			}
			f.hold(ctx, batch, wait)
		}
		p := publisher(t, f, nil)
		ctx, cancel := context.WithCancel(t.Context())
		r, err := p.PublishAsync(ctx, &polymq.Message{ID: "1"})
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if r.Err() != nil || r.ID() != "1" {
			t.Fatalf("the end of ctx had an effect: %v", r.Err())
		}
		wantIs(t, r.Wait(ctx), context.Canceled)
		time.AfterFunc(time.Second, func() { f.held()[0].Resolve(driver.ErrRejected) })
		wantIs(t, r.Wait(t.Context()), polymq.ErrRejected)
		<-r.Done()
		var e *polymq.Error
		if !errors.As(r.Err(), &e) || e.Op != "publish" || e.Name != "x" {
			t.Errorf("%v", r.Err())
		}

		r, err = p.PublishAsync(t.Context(), &polymq.Message{})
		if err != nil {
			t.Fatal(err)
		}
		f.held()[1].Resolve(nil)
		<-r.Done() // asked for afterwards only
		if len(r.ID()) < 20 || r.Wait(ctx) != nil {
			t.Errorf("ID %q, %v", r.ID(), r.Wait(ctx))
		}
	})
}

// A publisher must not remember what has its outcome.
func TestReceiptsAreForgotten(t *testing.T) {
	f := newFake()
	f.publish = f.hold
	p := publisher(t, f, nil)
	refs := make([]weak.Pointer[polymq.Receipt], 3)
	for i := range refs {
		r, err := p.PublishAsync(t.Context(), &polymq.Message{})
		if err != nil {
			t.Fatal(err)
		}
		refs[i] = weak.Make(r)
	}
	for _, i := range []int{1, 0, 2} {
		f.pending[i].Resolve(nil)
	}
	f.pending = nil
	for range 5 {
		runtime.GC()
	}
	for i, ref := range refs {
		if ref.Value() != nil {
			t.Errorf("receipt %d is still there", i)
		}
	}
	runtime.KeepAlive(p)
}
