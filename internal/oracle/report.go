package oracle

import (
	"encoding/json"
	"os"
	"time"

	"github.com/polymq/polymq"
)

// A Report is what a run showed, for programs.
type Report struct {
	Scripts int
	Seed    uint64
	Took    time.Duration
	// Differences has a line for each that is not known.
	Differences []string
	// Known is how often each known difference applied.
	Known map[string]int
	// Features are what each driver declares.
	Features map[string]polymq.Features
}

// write writes the report as JSON.
func (r Report) write(file string) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// applied is how often each known difference did.
func applied(t *tally) map[string]int {
	m := map[string]int{}
	for _, k := range Known {
		if n := t.of(k.Name); n > 0 {
			m[k.Name] = n
		}
	}
	return m
}
