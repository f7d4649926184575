package acceptance_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What users of other libraries of this field lost messages or sleep over, thread
// by thread, and what shows that it does not happen here: a subtest of TestPeers
// that is named after the thread, or tests that hold the same for every backend.
// 3b are defects that were read in the code of others; who has no thread is named
// by the library.
var peers = []struct {
	what    string
	threads string
	tests   []string
}{
	{"1: the process stays up and never publishes or consumes again",
		"go-cloud#2958 go-cloud#3388 outpost#998 seaweedfs#1794 dapr#8276 components-contrib#3621 dapr#4143 dapr#1688 go-rabbitmq#47 go-rabbitmq#137 nitro-plugins#84 go-micro/plugins#18 amqp091-go#65 convoy#2548",
		[]string{"internal/acceptance TestOutage", "conformance 21/publisher", "conformance 21/subscriber", "conformance 21/run", "conformance 21/restart", "drivers/amqp TestBrokerKilled", "drivers/nats TestKilledServer", "drivers/redis TestKilledUnderLoad"}},
	{"1: a subscription that begins while the broker is away", "components-contrib#4335", []string{"TestPeers 01_components-contrib_4335"}},
	{"2: the topology is not made anew", "watermill-amqp#17 watermill-amqp#25 rabbitmq-amqp-go-client#37 amqp091-go#357", []string{"conformance 21/declared", "conformance 21/exclusive", "conformance 21/temporary"}},
	{"3: Close, notifications and confirms lock each other up", "amqp091-go#32 amqp091-go#21 amqp091-go#122 amqp091-go#11 amqp091-go#222 amqp091-go#40 eventing-rabbitmq#1369", []string{"TestPeers 03_amqp091-go_32", "conformance 22/ends-waiting", "conformance 22/hanging-broker"}},
	{"3: a confirm that never comes", "connect#1299", []string{"conformance 2/hanging-broker", "conformance 21/calls-wait", "drivers/amqp TestStalledBroker"}},
	{"4: confirms mixed up after a reconnect", "go-rabbitmq#186 go-rabbitmq#119 go-rabbitmq#220 go-rabbitmq#227 go-rabbitmq#130 go-rabbitmq#226 watermill#267 amqp#370 amqp#459 amqp#361", []string{"TestPeers 04_go-rabbitmq_119", "drivers/amqp TestReturnsCorrelate", "drivers/amqp TestCutUnderLoad"}},
	{"5: publishing blocks for ever", "amqp091-go#111 amqp091-go#178 amqp091-go#210 amqp091-go#195 amqp091-go#259 amqp091-go#330 go-rabbitmq#189 watermill-amqp#22", []string{"conformance 2/hanging-broker", "conformance 7/full-window", "drivers/amqp TestStalledBroker", "internal/acceptance TestMemoryAlarm", "drivers/redis TestFullMemory", "internal/chaos TestChaos"}},
	{"6: the group of a Redis stream is lost", "components-contrib#3219 dapr#4302 components-contrib#3221", []string{"TestPeers 06_components-contrib_3219", "drivers/redis TestGroupDestroyed"}},
	{"7: pending messages lost with their consumer", "watermill-redisstream#24 watermill-redisstream#25 connect#2662", []string{"internal/acceptance TestKilledHolder", "conformance 13/killed"}},
	{"7: redelivered while still worked on, or while only buffered", "components-contrib#4599 dapr#3481", []string{"TestPeers 07_components-contrib_4599", "conformance 14/beyond-the-lease"}},
	{"10: a shutdown drops or repeats what is under way", "watermill#235 watermill#304 watermill-aws#30 go-rabbitmq#48 go-rabbitmq#78 go-rabbitmq#151 go-rabbitmq#150 go-rabbitmq#166 go-rabbitmq#178 go-rabbitmq#248 go-micro/plugins#45", []string{"conformance 19/finishes", "conformance 19/gives-back", "conformance 13/connection-closed"}},
	{"12: reads that block cannot be ended, and use up the pool", "go-redis#2556 go-redis#2276 go-redis#3934 go-redis#1002 go-redis#1147", []string{"TestPeers 12_go-redis_2276", "drivers/redis TestCloseIsPrompt", "conformance 13/context-ends"}},
	{"16: the deadline of a message that is worked on", "watermill#609 nats.go#1929 go-cloud#3507 components-contrib#4599 asynq#799 asynq#1030 asynq#612", []string{"conformance 14/beyond-the-lease", "conformance 14/extend", "conformance 19/finishes"}},
	{"24: confirmed, and not there after a failover", "dapr#7291", []string{"drivers/redis TestLeaderLostUnderLoad", "internal/acceptance TestLeaderLostUnderLoad"}},
	{"26: the consumer in the server is gone", "nats.go#1729 nats.go#1972", []string{"TestPeers 26_nats.go_1972", "conformance 21/subscriber"}},

	{"3b: a nack is reported as success, and so is the end of ctx", "D rabbitmq", []string{"conformance 2/full", "conformance 2/full-durable", "conformance 2/hanging-broker", "conformance 2/ended-context"}},
	{"3b: Close waits under the mutex that others need", "D rabbitmq", []string{"TestPeers 03_amqp091-go_32"}},
	{"3b: acknowledged although the handler failed", "D redis", []string{"conformance 19/settles"}},
	{"3b: a read loop without a pause", "D redis", []string{"TestPeers 3b_dapr-redis_no-pause"}},
	{"3b: Ack does nothing", "M natsjs", []string{"conformance 13/acked-is-gone"}},
	{"3b: a header with two values ends the process", "WN", []string{"TestPeers 3b_watermill-nats_two-values"}},
	{"3b: a send on a closed channel", "WN", []string{"TestPeers 03_amqp091-go_32"}},
	{"3b: an entry that cannot be read ends the subscription", "WR", []string{"internal/acceptance TestForeignEntry"}},
	{"3b: one nacked message holds up all others", "WR", []string{"TestPeers 3b_watermill-redisstream_nack"}},
	{"3b: channels get fewer with each outage", "WA", []string{"TestPeers 04_go-rabbitmq_119"}},
	{"3b: returned messages go to whoever looks first", "C amqp09", []string{"drivers/amqp TestReturnsCorrelate", "conformance 3/concurrent"}},
	{"3b: no delivery mode, no content type", "GC rabbit", []string{"conformance 10/restart", "conformance 1/properties"}},
	{"3b: one receive error is for ever", "GC rabbit", []string{"conformance 21/waits-for-queue", "conformance 21/subscriber"}},
	{"3b: closing and the broker hand messages to and fro", "R", []string{"TestPeers 3b_go-rabbitmq_spin", "conformance 19/gives-back"}},
}

// TestPeersTable: what the table names is there.
func TestPeersTable(t *testing.T) {
	const root = "../.."
	source := map[string]string{}
	text := func(dir, pattern string) string {
		key := filepath.Join(root, dir, pattern)
		if _, ok := source[key]; !ok {
			files, err := filepath.Glob(key)
			if err != nil || len(files) == 0 {
				t.Fatalf("%s: %v, %v", key, files, err)
			}
			var b strings.Builder
			for _, f := range files {
				one, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				b.Write(one)
			}
			source[key] = b.String()
		}
		return source[key]
	}
	for _, p := range peers {
		for _, test := range p.tests {
			where, name, _ := strings.Cut(test, " ")
			there := false
			switch where {
			case "TestPeers":
				there = strings.Contains(text("internal/acceptance", "peers_test.go"), fmt.Sprintf("%q", name))
			case "conformance":
				promise, row, _ := strings.Cut(name, "/")
				there = regexp.MustCompile(`promise: ` + promise + `, name: "` + regexp.QuoteMeta(row) + `"`).MatchString(text("conformance", "*.go"))
			default:
				there = strings.Contains(text(where, "*_test.go"), "func "+name+"(")
			}
			if !there {
				t.Errorf("%s (%s): there is no %s", p.what, p.threads, test)
			}
		}
	}
}
