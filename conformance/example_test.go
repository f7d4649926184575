package conformance_test

import (
	"testing"

	"github.com/polymq/polymq/conformance"
	_ "github.com/polymq/polymq/drivers/mem" // your driver
)

// The whole test of a driver: here the one in memory, whose URLs need nothing
// but a name of their own.
func ExampleRun() {
	_ = func(t *testing.T) { // func TestConformance(t *testing.T) {
		conformance.Run(t, conformance.Backend{
			Namespace: func(t testing.TB) string { return "mem://" + t.Name() },
			Known:     map[string]string{ /* "09_InForce/rounds": "issue 12" */ },
		})
	}
}
