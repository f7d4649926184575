package testbroker

import "testing"

// TestPortsAreGivenOnce: a server that is yet to be launched does not find its port
// taken by another.
func TestPortsAreGivenOnce(t *testing.T) {
	given := map[int]bool{}
	for range 500 {
		ports, err := freePorts(1)
		if err != nil {
			t.Fatal(err)
		}
		if given[ports[0]] {
			t.Fatalf("%d is given twice", ports[0])
		}
		given[ports[0]] = true
	}
}
