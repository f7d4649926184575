// Package polymqtest helps to test what is built on polymq: in memory under
// virtual time, where an hour passes at once, with faults where the test wants
// them, and, the same test, on a real broker.
//
//	func TestBilling(t *testing.T) {
//		polymqtest.Run(t, func(t *testing.T, b *polymqtest.Broker) {
//			conn := b.Open(nil)
//			b.Declare(conn, topology)
//			go serve(conn)                    // the program under test
//			publish(conn)
//			b.Settled(conn, "billing.dead")   // all is done, or came to rest there
//			...
//		})
//	}
//
// POLYMQ_TEST_URL names a broker for it; without it the test runs in memory. A
// test that runs on a broker imports the broker's driver.
//
// # Time
//
// In memory a test runs in a bubble of testing/synctest: time stands still while
// anything in it can go on, and jumps to the next timer when nothing can. So
// times to live, delays, backoffs and the timeouts of the program under test
// pass in order and at once, and Advance lets a given time pass. What synctest
// says of bubbles holds: no network, and every goroutine must end.
// On a broker time is the real one, and Advance waits.
//
// # Faults
//
// Inject makes publishes, deliveries and settlements go wrong by a Rule: one of
// the test's own, or Sometimes, which draws from a seed. In memory only.
//
// # Settled
//
// A Recorder sees everything that its connections publish, are delivered and
// settle, and waits until nothing is left to happen. It needs no sleeping and no
// guess of how long to wait, and says what is missing when its ctx ends.
package polymqtest
