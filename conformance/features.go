package conformance

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/polymq/polymq"
)

// allFeatures is every feature, in the order in which the table shows them.
var allFeatures = []polymq.Feature{
	polymq.FeatureRouting, polymq.FeatureUnroutable, polymq.FeatureConfirms, polymq.FeatureDedup, polymq.FeatureAttempts, polymq.FeatureMaxAttempts,
	polymq.FeatureDeadLetter, polymq.FeatureDelayedNack, polymq.FeatureDelay,
	polymq.FeatureTTL, polymq.FeatureQueueExpiry, polymq.FeatureMaxLength, polymq.FeaturePriority, polymq.FeatureSingleActiveConsumer, polymq.FeatureExclusive, polymq.FeatureAutoDelete,
	polymq.FeatureTopology, polymq.FeatureInspect, polymq.FeaturePurge,
}

// FeatureTable writes what backends declare as a table in Markdown, one column
// a backend: how each has every feature (native, emulated, refused), and its
// limits. The suite has both enforced.
func FeatureTable(w io.Writer, backends ...polymq.Features) error {
	var b strings.Builder
	row := func(name string, cell func(f polymq.Features) string) {
		b.WriteString("| " + name + " |")
		for _, f := range backends {
			b.WriteString(" " + cell(f) + " |")
		}
		b.WriteByte('\n')
	}
	row("", func(f polymq.Features) string { return f.Backend })
	row("---", func(polymq.Features) string { return "---" })
	for _, feature := range allFeatures {
		row(string(feature), func(f polymq.Features) string { return string(f.Support[feature]) })
	}
	row("largest body", func(f polymq.Features) string { return size(f.MaxMessageBytes) })
	row("deduplication window", func(f polymq.Features) string { return orElse(f.DedupWindow, "none") })
	row("redelivery after a crash", func(f polymq.Features) string {
		if f.Lease == 0 {
			return "at once"
		}
		return "within " + short(f.Lease)
	})
	row("longest hold", func(f polymq.Features) string { return orElse(f.HoldLimit, "no limit") })
	row("delays are exact to", func(f polymq.Features) string {
		if !f.Has(polymq.FeatureDelay) {
			return "none"
		}
		return short(f.DelayPrecision)
	})
	row("a redelivered message comes", func(f polymq.Features) string { return f.Requeue })
	row("plain queues mind priorities", func(f polymq.Features) string { return yesNo(f.PlainPriorities) })
	row("full durable queues refuse a message late", func(f polymq.Features) string { return yesNo(f.RefusesLate) })
	row("attempts count what was only prefetched", func(f polymq.Features) string { return yesNo(f.CountsReturned) })
	_, err := io.WriteString(w, b.String())
	return err
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func size(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

func orElse(d time.Duration, none string) string {
	if d == 0 {
		return none
	}
	return short(d)
}

// short is a duration without its zero units: 30m, not 30m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
