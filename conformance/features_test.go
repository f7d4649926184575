package conformance_test

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/conformance"
	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/mem"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
	"github.com/polymq/polymq/internal/testbroker"
)

var update = flag.Bool("update", false, "write the feature table into README.md")

func TestMain(m *testing.M) { testbroker.Main(m) }

// TestReadme compares the README's feature table with what the four backends
// declare, which the suite has each of them keep. The heading, which has the
// brokers' versions, may differ.
func TestReadme(t *testing.T) {
	var backends []polymq.Features
	for _, scheme := range []string{"amqp", "nats", "redis", "mem"} {
		c, err := polymq.Open(t.Context(), testbroker.URL(t, scheme), nil)
		if err != nil {
			t.Fatal(err)
		}
		backends = append(backends, c.Features())
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	var table bytes.Buffer
	if err := conformance.FeatureTable(&table, backends...); err != nil {
		t.Fatal(err)
	}
	const file, begin, end = "../README.md", "<!-- features -->\n", "<!-- /features -->"
	readme, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(readme), begin)
	was, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("README.md has no %q and %q", begin, end)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+table.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	_, got, _ := strings.Cut(table.String(), "\n")
	if _, was, _ = strings.Cut(was, "\n"); got != was {
		t.Errorf("README.md's feature table is not what the backends declare; go test ./conformance -run TestReadme -update writes\n%s", &table)
	}
}

func TestFeatureTable(t *testing.T) {
	var table bytes.Buffer
	err := conformance.FeatureTable(&table,
		polymq.Features{
			Backend:         "Broker 1.2",
			Support:         map[polymq.Feature]polymq.Support{polymq.FeatureRouting: polymq.SupportNative, polymq.FeatureTTL: polymq.SupportRefused, polymq.FeatureDelay: polymq.SupportNative},
			MaxMessageBytes: 16 << 20, HoldLimit: 30 * time.Minute, DelayPrecision: 100 * time.Millisecond, Requeue: "last", CountsReturned: true, PlainPriorities: true, RefusesLate: true,
		},
		polymq.Features{
			Backend:         "memory",
			Support:         map[polymq.Feature]polymq.Support{polymq.FeatureRouting: polymq.SupportEmulated},
			MaxMessageBytes: 1000, DedupWindow: 20 * time.Second, Lease: time.Hour, Requeue: "first",
		})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"|  | Broker 1.2 | memory |\n| --- | --- | --- |\n",
		"| routing | native | emulated |\n",
		"| ttl | refused |  |\n",
		"| largest body | 16 MiB | 1000 bytes |\n",
		"| deduplication window | none | 20s |\n",
		"| redelivery after a crash | at once | within 1h |\n",
		"| longest hold | 30m | no limit |\n",
		"| delays are exact to | 100ms | none |\n",
		"| a redelivered message comes | last | first |\n",
		"| plain queues mind priorities | yes | no |\n",
		"| full durable queues refuse a message late | yes | no |\n",
		"| attempts count what was only prefetched | yes | no |\n",
	} {
		if !strings.Contains(table.String(), line) {
			t.Errorf("the table lacks %q:\n%s", line, &table)
		}
	}
}
