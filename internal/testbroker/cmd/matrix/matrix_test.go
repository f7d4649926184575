package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/oracle"
)

func TestRead(t *testing.T) {
	o, err := read(strings.NewReader(`{"Action":"start"}
{"Action":"run","Test":"TestConformance"}
{"Action":"pass","Test":"TestConformance/01_Confirmed/one"}
{"Action":"pass","Test":"TestConformance/01_Confirmed/one/part"}
{"Action":"fail","Test":"TestConformance/01_Confirmed/two"}
{"Action":"fail","Test":"TestConformance/01_Confirmed"}
{"Action":"skip","Test":"TestConformance/02_Outcomes/three"}
{"Action":"fail","Test":"TestConformance"}
{"Action":"fail"}
`), 2)
	o.end(errors.New("exit status 1"))
	if want := (outcome{1, []string{"01_Confirmed/two"}, []string{"02_Outcomes/three"}, true}); err != nil || !reflect.DeepEqual(o, want) || o.ok() {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := read(strings.NewReader("FAIL\n"), 2); err == nil {
		t.Error("what is no JSON passes")
	}
}

// A program that dies, or fails though no test does, or tests nothing, fails.
func TestEnd(t *testing.T) {
	one := `{"Action":"pass","Test":"TestConformance/01_Confirmed/one"}` + "\n"
	whole := `{"Action":"pass","Test":"TestConformance"}` + "\n"
	for text, err := range map[string]error{
		one:         errors.New("killed"),
		one + whole: errors.New("exit status 1"),
		whole:       nil,
	} {
		o, _ := read(strings.NewReader(text), 2)
		if o.end(err); o.ok() {
			t.Errorf("%s, then %v: %+v", text, err, o)
		}
	}
	o, _ := read(strings.NewReader(one+whole), 2)
	if o.end(nil); !o.ok() {
		t.Errorf("%+v", o)
	}
}

func TestChoose(t *testing.T) {
	names := func(es []entry) (names []string) {
		for _, e := range es {
			names = append(names, e.name)
		}
		return names
	}
	if es, err := choose(nil); err != nil || len(es) != len(entries) {
		t.Errorf("%v, %v", names(es), err)
	}
	if es, err := choose([]string{"redis-8", "valkey", "valkey-9"}); err != nil || !slices.Equal(names(es), []string{"redis-8", "valkey-8", "valkey-9"}) {
		t.Errorf("%v, %v", names(es), err)
	}
	if _, err := choose([]string{"kafka"}); err == nil || !strings.Contains(err.Error(), "rabbitmq-4.3") {
		t.Errorf("%v", err)
	}
}

// What cannot be had, or is not the promised version, is a row that fails and
// says why.
func TestMissing(t *testing.T) {
	t.Chdir("../../../..")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("GOPROXY", "off")
	t.Setenv("GOFLAGS", "-mod=mod")
	nats := filepath.Join(os.Getenv("XDG_CACHE_HOME"), "polymq/nats/v9/nats-server")
	if err := os.MkdirAll(filepath.Dir(nats), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(nats, []byte("#!/bin/sh\necho nats-server: v9.1.0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	es := []entry{
		{name: "never", scheme: "nats", source: []string{"nats", "v2.0.99999"}, program: "nats/v2.0.99999/nats-server"},
		{name: "nothing", scheme: "nats", source: []string{"nats", "v9"}, program: "nats/v9/no-server"},
		{name: "moved", broker: "NATS", from: "the newest", version: "8.", scheme: "nats", source: []string{"nats", "v9"}, program: "nats/v9/nats-server"},
		{name: "there", version: "9.", scheme: "nats", source: []string{"nats", "v9"}, program: "nats/v9/nats-server"},
	}
	for n, why := range []string{"matrix.sh nats v2.0.99999: exit status 1", "there is no", "the newest has NATS 9.1.0, not 8.", ""} {
		i := install(t.Context(), es)[n]
		if why == "" {
			if i.err != nil || i.found != "9.1.0" || i.server != nats {
				t.Errorf("%+v", i)
			}
			continue
		}
		if i.err == nil || !strings.Contains(i.err.Error(), why) {
			t.Errorf("%s: %v", i.name, i.err)
			continue
		}
		if r := (suites{}).run(t.Context(), i); r.ok() || r.Missing != i.err.Error() {
			t.Errorf("%+v", r)
		}
	}
}

// The page has its results in it, so that the next run replaces some.
func TestPage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	old, err := readPage(file)
	if err != nil || old != nil {
		t.Fatalf("%v, %v", old, err)
	}
	features := func(version, requeue string) map[string]driver.Features {
		return map[string]driver.Features{"amqp": {Backend: "RabbitMQ " + version, Requeue: requeue}}
	}
	known := oracle.Known[0].Name
	rs := merged(nil, []result{
		{Name: "rabbitmq-3.10", Broker: "RabbitMQ", Version: "3.10.8", Conformance: outcome{Passed: 7}, Oracle: oracle.Report{Scripts: 500, Features: features("3.10.8", "last")}, Took: time.Minute, Commit: "abc"},
		{Name: "rabbitmq-4.3", Broker: "RabbitMQ", Version: "4.3.6", Conformance: outcome{Passed: 6, Failed: []string{"06_Order/one"}},
			Oracle: oracle.Report{Scripts: 500, Differences: []string{"seed 1:\n\tgot --> want"}, Known: map[string]int{known: 3}, Features: features("4.3.6", "first")}, Commit: "abc"},
		{Name: "valkey-9", Broker: "Valkey", Missing: "no such suite", Commit: "abc"},
	})
	if err := writePage(file, rs); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"| rabbitmq-3.10 | RabbitMQ 3.10.8 |  | 7 rows | no difference in 500 scripts | 1m0s | abc |\n",
		"| 6 rows, **1 failed** | **differences: 1** in 500 scripts |",
		"| valkey-9 | Valkey |  | **not run** | **not run** | | abc |\n",
		"- rabbitmq-4.3, conformance: 06_Order/one\n- rabbitmq-4.3, oracle: seed 1: got --> want\n",
		"- redis-8 was not run: nobody has yet\n",
		"- valkey-9 was not run: no such suite\n",
		"|  | RabbitMQ 3.10.8 | RabbitMQ 4.3.6 |\n| --- | --- | --- |\n| a redelivered message comes | last | first |\n\n",
		"| passes | rabbitmq-4.3 |\n",
	} {
		if !strings.Contains(string(text), line) {
			t.Errorf("the page lacks %q:\n%s", line, text)
		}
	}
	again, err := readPage(file)
	if all := merged(again, nil); err != nil || !reflect.DeepEqual(all, rs) {
		t.Fatalf("%v: read %+v, wrote %+v", err, all, rs)
	}
	one := merged(again, []result{{Name: "rabbitmq-4.3", Commit: "def"}})
	if one[2].Commit != "def" || one[0].Commit != "abc" || len(one) != len(entries) {
		t.Errorf("%+v", one)
	}
}

// A run that is interrupted tests nothing more and leaves the page as it is.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := runAll(ctx, suites{dir: t.TempDir()}, []installed{{entry: entry{name: "x", scheme: "nats"}}}, func([]result) error {
		t.Error("a row was written")
		return nil
	})
	if len(done) > 0 {
		t.Errorf("%+v", done)
	}
}
