package testbroker

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

func missing(program, why string) error {
	return fmt.Errorf("%s %s. Run this once, it installs what is missing:\n\n\tmake brokers\n\nor leave brokers out with go test -short", program, why)
}

// serverVariable is the environment variable that names the program to start a
// broker from.
func serverVariable(k kind) string { return "POLYMQ_TEST_" + strings.ToUpper(k.scheme()) + "_SERVER" }

// named is the program that the environment names for k, if it does.
func named(k kind) (p program, ok bool, err error) {
	path := os.Getenv(serverVariable(k))
	if path == "" {
		return program{}, false, nil
	}
	if path, err = filepath.Abs(path); err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return program{}, false, fmt.Errorf("%s names no program: %w", serverVariable(k), err)
	}
	return programAt(path), true, nil
}

// findRabbitMQ finds the server's own script. The one on the path of Debian
// and Ubuntu is a wrapper that changes the user and fixes the data folder.
func findRabbitMQ() (script, epmd program, err error) {
	script, ok, err := named(rabbitMQ{})
	if err != nil {
		return script, epmd, err
	}
	if script.tree != "" {
		return script, program{path: "/usr/bin/epmd", tree: script.tree}, nil
	}
	if !ok {
		for _, pattern := range []string{"/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server", "/opt/rabbitmq*/sbin/rabbitmq-server"} {
			if found, _ := filepath.Glob(pattern); len(found) > 0 {
				script.path = found[len(found)-1]
				break
			}
		}
	}
	if script.path == "" {
		return script, epmd, missing("rabbitmq-server", "is not installed")
	}
	if epmd.path, err = exec.LookPath("epmd"); err != nil {
		return script, epmd, missing("epmd, which RabbitMQ needs,", "is not installed")
	}
	return script, epmd, nil
}

// findErlCall finds Erlang's program that calls a function of a running node; it
// comes with Erlang itself.
func findErlCall() (program, error) {
	script, _, err := findRabbitMQ()
	if err != nil {
		return program{}, err
	}
	for _, root := range []string{"/usr/lib/erlang", "/usr/lib64/erlang", "/usr/local/lib/erlang"} {
		if found, _ := filepath.Glob(script.tree + root + "/erts-*/bin/erl_call"); len(found) > 0 {
			return program{path: found[len(found)-1][len(script.tree):], tree: script.tree}, nil
		}
	}
	return program{}, missing("erl_call, a part of Erlang,", "is not installed")
}

// The oldest nats-server that the tests start of their own accord; make brokers
// installs a newer one than most systems have.
const natsMajor, natsMinor = 2, 12

var natsVersion = regexp.MustCompile(`v(\d+)\.(\d+)\.`)

func findNATS() (program, error) {
	if p, ok, err := named(nats{}); ok || err != nil {
		return p, err
	}
	var candidates []string
	if cache, err := os.UserCacheDir(); err == nil {
		candidates = append(candidates, filepath.Join(cache, "polymq", "bin", "nats-server"))
	}
	if path, err := exec.LookPath("nats-server"); err == nil {
		candidates = append(candidates, path)
	}
	why := "is not installed"
	for _, path := range candidates {
		out, err := exec.Command(path, "--version").Output()
		if err != nil {
			continue
		}
		if m := natsVersion.FindSubmatch(out); m != nil {
			major, _ := strconv.Atoi(string(m[1]))
			minor, _ := strconv.Atoi(string(m[2]))
			if major > natsMajor || major == natsMajor && minor >= natsMinor {
				return program{path: path}, nil
			}
		}
		why = fmt.Sprintf("at %s is too old: want %d.%d or newer", path, natsMajor, natsMinor)
	}
	return program{}, missing("nats-server", why)
}

func findRedis() (program, error) {
	if p, ok, err := named(redis{}); ok || err != nil {
		return p, err
	}
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return program{path: path}, nil
		}
	}
	return program{}, missing("redis-server", "is not installed")
}
