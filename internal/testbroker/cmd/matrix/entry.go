package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/polymq/polymq/internal/testbroker"
)

// An entry is a version of a broker that the library promises.
type entry struct {
	name    string
	broker  string
	version string // what it must begin with; "": any
	from    string // where the program comes from, for people
	scheme  string
	source  []string // arguments of matrix.sh; nil: what make brokers installs
	program string   // below the cache, where there is a source
}

const (
	rabbitMQ = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"
	redis    = "/usr/bin/redis-server"
	valkey   = "/usr/bin/valkey-server"
)

func debian(suite string) []string { return []string{"debian", suite} }

// entries are all rows. The oldest NATS is the one that the driver says it needs
// (drivers/nats/open.go).
var entries = []entry{
	{"rabbitmq-3.10", "RabbitMQ", "3.10", "Debian bookworm", "amqp", nil, ""},
	{"rabbitmq-4.0", "RabbitMQ", "4.0", "Debian trixie", "amqp", debian("trixie"), "trees/trixie" + rabbitMQ},
	{"rabbitmq-4.3", "RabbitMQ", "4.3", "Debian sid", "amqp", debian("sid"), "trees/sid" + rabbitMQ},
	{"nats-2.12.2", "NATS", "2.12.2", "the oldest", "nats", []string{"nats", "v2.12.2"}, "nats/v2.12.2/nats-server"},
	{"nats-newest", "NATS", "", "the newest", "nats", []string{"nats", "latest"}, "nats/latest/nats-server"},
	{"redis-7", "Redis", "7.", "Debian bookworm", "redis", nil, ""},
	{"redis-8", "Redis", "8.", "Debian trixie", "redis", debian("trixie"), "trees/trixie" + redis},
	{"valkey-8", "Valkey", "8.", "Debian trixie", "redis", debian("trixie"), "trees/trixie" + valkey},
	{"valkey-9", "Valkey", "9.", "Debian sid", "redis", debian("sid"), "trees/sid" + valkey},
}

// installed is an entry that can run, or the reason why it cannot.
type installed struct {
	entry
	server string // the program; "": the installed one
	found  string // its version
	err    error
}

// install installs what entries need, each source once. What cannot be had is a
// failed row, and does not keep the others from running.
func install(ctx context.Context, es []entry) []installed {
	all := make([]installed, len(es))
	errs := map[string]error{}
	for i, e := range es {
		source := strings.Join(e.source, " ")
		err, tried := errs[source]
		if !tried && e.source != nil {
			err = fetch(ctx, e.source)
			errs[source] = err
		}
		all[i] = installed{entry: e, err: err}
		if err == nil {
			all[i].err = all[i].find()
		}
		if err := all[i].err; err != nil {
			fmt.Printf("%s: %v\n", e.name, err)
		}
	}
	return all
}

const script = "internal/testbroker/matrix.sh"

// fetch runs matrix.sh, and says what it said where it fails.
func fetch(ctx context.Context, args []string) error {
	var said tail
	cmd := exec.CommandContext(ctx, script, args...)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", script, strings.Join(args, " "), err, said.text())
	}
	return nil
}

// tail shows what is written to it and keeps the end.
type tail struct{ last []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.last = append(t.last, p...)
	t.last = t.last[max(0, len(t.last)-300):]
	return os.Stdout.Write(p)
}

func (t *tail) text() string { return strings.Join(strings.Fields(string(t.last)), " ") }

// find finds the program and asks for its version, which must be the promised.
func (i *installed) find() error {
	if i.program != "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		pattern := filepath.Join(cache, "polymq", i.program)
		programs, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		if len(programs) == 0 {
			return fmt.Errorf("there is no %s; remove what %s made there and run again", pattern, script)
		}
		i.server = programs[len(programs)-1]
	}
	var err error
	if i.found, err = testbroker.Version(i.scheme, i.server); err != nil {
		return err
	}
	if !strings.HasPrefix(i.found, i.version) {
		return fmt.Errorf("%s has %s %s, not %s: name another source in %s", i.from, i.broker, i.found, i.version, "cmd/matrix/entry.go")
	}
	return nil
}
