// Matrix runs the conformance suite and the oracle against the versions of the
// brokers that matrix.sh installs, beside the installed ones, and writes what
// came of it to docs/MATRIX.md:
//
//	go run ./internal/testbroker/cmd/matrix [-only regexp]
//
// It exits with 1 when anything fails. With -only, which selects lines of the
// table, it prints the table instead of writing it. The oracle plays the scripts
// of make test, or random ones for ORACLE_SECONDS on each.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/polymq/polymq/internal/testbroker"
)

const page = "docs/MATRIX.md"

func main() {
	only := flag.String("only", "", "run only what this regular expression matches, as in 'RabbitMQ 4'; print the table, write nothing")
	flag.Parse()
	ok, err := run(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(only string) (ok bool, err error) {
	selected, err := regexp.Compile(only)
	if err != nil {
		return false, err
	}
	all, err := entries()
	if err != nil {
		return false, err
	}
	ok = true
	var lines []line
	for _, e := range all {
		if !selected.MatchString(e.name()) {
			continue
		}
		l := line{entry: e}
		fmt.Println(e.name())
		if l.conformance, err = e.conformance(); err != nil {
			return false, err
		}
		fmt.Println("\tconformance:", l.conformance)
		if l.oracle, err = e.oracle(); err != nil {
			return false, err
		}
		fmt.Println("\toracle:", l.oracle)
		ok = ok && l.conformance.ok() && l.oracle.ok()
		lines = append(lines, l)
	}
	text := table(lines)
	if only != "" {
		fmt.Print("\n", text)
		return ok, nil
	}
	return ok, os.WriteFile(page, []byte(text), 0o644)
}

// An entry is one version of a broker.
type entry struct {
	broker, version string
	from            string // where the program comes from
	scheme          string
	server          string // the program; "": the installed one
}

func (e entry) name() string { return e.broker + " " + e.version }

// entries finds what matrix.sh has installed.
func entries() ([]entry, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	cache = filepath.Join(cache, "polymq")
	const (
		rabbitMQ = "usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"
		redis    = "usr/bin/redis-server"
		valkey   = "usr/bin/valkey-server"
	)
	all := []entry{
		{broker: "RabbitMQ", from: "installed", scheme: "amqp"},
		{broker: "RabbitMQ", from: "Debian trixie", scheme: "amqp", server: "trees/trixie/" + rabbitMQ},
		{broker: "RabbitMQ", from: "Debian sid", scheme: "amqp", server: "trees/sid/" + rabbitMQ},
		{broker: "NATS", from: "the oldest", scheme: "nats", server: "nats/v2.12.2/nats-server"},
		{broker: "NATS", from: "the newest", scheme: "nats", server: "nats/latest/nats-server"},
		{broker: "Redis", from: "installed", scheme: "redis"},
		{broker: "Redis", from: "Debian trixie", scheme: "redis", server: "trees/trixie/" + redis},
		{broker: "Redis", from: "Debian sid", scheme: "redis", server: "trees/sid/" + redis},
		{broker: "Valkey", from: "Debian trixie", scheme: "redis", server: "trees/trixie/" + valkey},
		{broker: "Valkey", from: "Debian sid", scheme: "redis", server: "trees/sid/" + valkey},
	}
	for i := range all {
		e := &all[i]
		if e.server != "" {
			found, _ := filepath.Glob(filepath.Join(cache, e.server))
			if len(found) == 0 {
				return nil, fmt.Errorf("%s (%s) is not there: run internal/testbroker/matrix.sh", e.broker, e.from)
			}
			e.server = found[len(found)-1]
		}
		if e.version, err = testbroker.Version(e.scheme, e.server); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// line is a line of the table.
type line struct {
	entry
	conformance, oracle outcome
}

func table(lines []line) string {
	var b strings.Builder
	b.WriteString(`# Versions

Written by ` + "`make test-matrix`" + `, which runs the conformance suite on each of these
brokers, and then the oracle: random scripts, played on a RabbitMQ through the raw
client and on the drivers, whose outcomes must not differ. A RabbitMQ of the table
is the one that all drivers are compared with; the drivers of the others are
compared with the installed one. Debian's newer releases are file trees made by
debootstrap; what sid has changes.

| Broker | From | Conformance: rows passed | failed | Oracle |
|---|---|---|---|---|
`)
	for _, l := range lines {
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %s |\n", l.name(), l.from, l.conformance.passed, len(l.conformance.failed), l.verdict())
	}
	for _, l := range lines {
		if len(l.conformance.failed) > 0 {
			fmt.Fprintf(&b, "\nRows that failed on %s:\n\n- %s\n", l.name(), strings.Join(l.conformance.failed, "\n- "))
		}
	}
	return b.String()
}

// verdict is what the oracle says.
func (l line) verdict() string {
	extent := "the scripts of make test"
	if seconds := os.Getenv("ORACLE_SECONDS"); seconds != "" {
		extent = seconds + " s"
	}
	if l.oracle.ok() {
		return "no difference in " + extent
	}
	return "failed"
}
