package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/conformance"
	"github.com/polymq/polymq/internal/oracle"
)

const page = "docs/MATRIX.md"

// The page carries its results, so that one row can be run again.
const begin, end = "<!-- results\n", "-->\n"

// readPage reads the results that the page was written from.
func readPage(file string) (rs []result, err error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(text), begin)
	rest, _, _ = strings.Cut(rest, end)
	for line := range strings.Lines(rest) {
		var r result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, fmt.Errorf("%s: %w: remove it and run all rows", file, err)
		}
		rs = append(rs, r)
	}
	return rs, nil
}

// merged are the results in the order of the entries: the new one of each where
// there is one.
func merged(old, now []result) (rs []result) {
	for _, e := range entries {
		r := result{Name: e.name, Broker: e.broker, From: e.from}
		for _, o := range append(slices.Clone(old), now...) {
			if o.Name == e.name {
				r = o
			}
		}
		rs = append(rs, r)
	}
	return rs
}

func writePage(file string, rs []result) error {
	text, err := pageText(rs)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

func pageText(rs []result) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(`# Versions

Written by ` + "`make test-matrix`" + `, which runs the [conformance suite](../conformance) on each
of these brokers, and then the oracle: random scripts, played on a RabbitMQ through the
raw client and on the drivers, whose outcomes must not differ. Each RabbitMQ here is the
one that all drivers are compared with; the other brokers' drivers are compared with
RabbitMQ 3.10. ` + "`make test-matrix MATRIX=redis-8`" + ` runs one row again.

| | Broker | From | Conformance | Oracle | Took | Commit |
|---|---|---|---|---|---|---|
`)
	var failed []string
	for _, r := range rs {
		if r.Commit == "" || r.Missing != "" {
			fmt.Fprintf(&b, "| %s | %s | %s | **not run** | **not run** | | %s |\n", r.Name, r.Broker, r.From, r.Commit)
			failed = append(failed, fmt.Sprintf("%s was not run: %s", r.Name, cmp.Or(oneLine(r.Missing), "nobody has yet")))
			continue
		}
		fmt.Fprintf(&b, "| %s | %s %s | %s | %s | %s | %v | %s |\n", r.Name, r.Broker, r.Version, r.From, r.Conformance, r.oracleText(), r.Took, r.Commit)
		for _, row := range r.Conformance.Failed {
			failed = append(failed, fmt.Sprintf("%s, conformance: %s", r.Name, oneLine(row)))
		}
		for _, d := range r.Oracle.Differences {
			failed = append(failed, fmt.Sprintf("%s, oracle: %s", r.Name, oneLine(d)))
		}
	}
	if len(failed) > 0 {
		fmt.Fprintf(&b, "\n## What failed\n\n- %s\n", strings.Join(failed, "\n- "))
	}
	if err := writeFeatures(&b, rs); err != nil {
		return nil, err
	}
	writeKnown(&b, rs)
	b.WriteString("\n" + begin)
	for _, r := range rs {
		if r.Commit == "" {
			continue
		}
		line, err := json.Marshal(r) // it escapes what would end the comment
		if err != nil {
			return nil, err
		}
		b.Write(append(line, '\n'))
	}
	b.WriteString(end)
	return b.Bytes(), nil
}

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + " ..."
	}
	return s
}

// writeFeatures writes what drivers declare of one version and not of another.
func writeFeatures(b *bytes.Buffer, rs []result) error {
	for _, scheme := range []string{"amqp", "nats", "redis"} {
		var declared []polymq.Features
		for _, r := range rs {
			if f, ok := r.Oracle.Features[scheme]; ok && slices.ContainsFunc(entries, func(e entry) bool { return e.name == r.Name && e.scheme == scheme }) {
				declared = append(declared, f)
			}
		}
		var table strings.Builder
		if err := conformance.FeatureTable(&table, declared...); err != nil {
			return err
		}
		lines := slices.Collect(strings.Lines(table.String()))
		differing := slices.DeleteFunc(lines[2:], func(line string) bool {
			cells := strings.Split(strings.Trim(line, "| \n"), " | ")
			return len(slices.Compact(cells[1:])) < 2
		})
		if len(differing) > 0 {
			fmt.Fprintf(b, "\n## What the %s driver declares by version\n\n%s%s%s", scheme, lines[0], lines[1], strings.Join(differing, ""))
		}
	}
	return nil
}

// writeKnown writes the known differences, and where each applied.
func writeKnown(b *bytes.Buffer, rs []result) {
	b.WriteString(`
## What differs, and why

The oracle lets these pass, or its scripts avoid them.

| | Why | | On |
|---|---|---|---|
`)
	for _, k := range oracle.Known {
		var on []string
		for _, r := range rs {
			if r.Oracle.Known[k.Name] > 0 {
				on = append(on, r.Name)
			}
		}
		where, how := strings.Join(on, ", "), "passes"
		switch len(on) {
		case len(rs):
			where = "all"
		case 0:
			where = "none of these runs"
		}
		if k.Avoided {
			how = "avoided"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", k.Name, k.Reason, how, where)
	}
}
