package conformance_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/polymq/polymq/conformance"
	"github.com/polymq/polymq/drivers/mem"
)

var names atomic.Int64

// memory is a fresh broker in memory.
func memory(t testing.TB) string {
	name := fmt.Sprintf("conformance-%d", names.Add(1))
	t.Cleanup(func() { mem.Remove(name) })
	return "mem://" + name
}

func nameOf(url string) string {
	_, name, _ := strings.Cut(url, "://")
	return name
}

func onMemory() conformance.Backend {
	return conformance.Backend{
		Namespace: memory,
		Sever: func(_ testing.TB, url string) (string, func()) {
			return url, func() { mem.Sever(nameOf(url)) }
		},
		Restart: func(t testing.TB) (string, func()) {
			url := memory(t)
			return url, func() { mem.Restart(nameOf(url)) }
		},
		Patience: 5 * time.Second,
	}
}

func TestMem(t *testing.T) { conformance.Run(t, onMemory()) }
