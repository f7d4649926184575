package mem_test

import (
	"fmt"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/polymq/polymq/conformance"
	"github.com/polymq/polymq/drivers/mem"
)

var namespaces atomic.Int64

func TestConformance(t *testing.T) {
	broker := func(t testing.TB) string {
		name := fmt.Sprintf("conformance-%d", namespaces.Add(1))
		t.Cleanup(func() { mem.Remove(name) })
		return name
	}
	nameOf := func(t testing.TB, at string) string {
		u, err := url.Parse(at)
		if err != nil {
			t.Fatal(err)
		}
		return u.Host
	}
	conformance.Run(t, conformance.Backend{
		Namespace: func(t testing.TB) string { return "mem://" + broker(t) },
		Sever: func(t testing.TB, at string) (string, func()) {
			return at, func() { mem.Sever(nameOf(t, at)) }
		},
		Restart: func(t testing.TB) (string, func()) {
			name := broker(t)
			return "mem://" + name, func() { mem.Restart(name) }
		},
		Newer: func(t testing.TB, at string) {
			if err := mem.WriteNewer(nameOf(t, at)); err != nil {
				t.Fatal(err)
			}
		},
	})
}
