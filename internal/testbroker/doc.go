// Package testbroker gives tests real brokers.
//
// A test asks for a namespace of its own on a broker that the whole test run
// shares, or for a broker that it may kill:
//
//	func TestMain(m *testing.M) { testbroker.Main(m) }
//
//	func TestOrders(t *testing.T) {
//		url := testbroker.URL(t, "amqp") // a fresh vhost, removed when t ends
//		...
//	}
//
// Where the shared broker comes from, the first of these that applies:
//
//   - POLYMQ_TEST_AMQP_URL, POLYMQ_TEST_NATS_URL or POLYMQ_TEST_REDIS_URL name
//     one that you run. It must be a plain URL with one host; RabbitMQ needs its
//     management plugin, at port 15672 of that host or where the URL's option
//     management says. Tests only touch namespaces that they made.
//   - POLYMQ_RUN_AMQP_URL and its siblings are set by the command
//     internal/testbroker/cmd/brokers, which starts brokers once for all the
//     packages of a run. make test uses it.
//   - Otherwise the test process starts one at first use, and stops it in Main.
//
// Brokers that are started here are ordinary processes of the installed
// programs: loopback only, on free ports, with a random password and a data
// folder of their own under the temporary folder. They die with the process
// that started them, however that ends (Linux does that, so brokers are started
// on Linux only; elsewhere name your own).
//
// POLYMQ_TEST_AMQP_SERVER, POLYMQ_TEST_NATS_SERVER and POLYMQ_TEST_REDIS_SERVER
// name the programs to start them from (of RabbitMQ its script rabbitmq-server),
// for versions other than the installed ones. A program below the root of
// another system's files, as debootstrap makes them, runs inside these: that is
// how make test-matrix has newer RabbitMQs.
//
// A broker that is not installed fails the test, with the command that installs
// it. Only -short leaves out the tests that need one.
package testbroker
