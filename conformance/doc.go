// Package conformance is polymq's promises as a test suite. A driver passes it
// or it is not a driver:
//
//	func TestConformance(t *testing.T) {
//		conformance.Run(t, conformance.Backend{
//			Namespace: func(t testing.TB) string { return "mybroker://localhost/" + fresh(t) },
//		})
//	}
//
// Run works through an ordered table, one subtest a promise and one below it a
// row (09_InForce/bind); what fails prints the promise that it breaks. It uses
// the public API only, so that the core, the driver and what lies between are
// tested together.
//
// Features are enforced both ways: what a backend declares it must do, and
// what it refuses must answer errors.ErrUnsupported, never a silent no-op. A
// row whose feature is refused checks the refusal in its place.
//
// That a message does not come is shown by a sentinel message behind it, never
// by waiting a while. What does come has Backend.Patience, and some times that on
// a busy machine.
//
// The optional hooks of Backend make faults: a connection cut, a client dead,
// a broker that hangs or restarts. Rows that need a hook which is not offered
// do not run, and Run logs their names.
package conformance
