package testbroker

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

func missing(program, why string) error {
	return fmt.Errorf("%s %s. Run this once, it installs what is missing:\n\n\tmake brokers\n\nor leave brokers out with go test -short", program, why)
}

// findRabbitMQ finds the server's own script. The one on the path of Debian
// and Ubuntu is a wrapper that changes the user and fixes the data folder.
func findRabbitMQ() (script, epmd string, err error) {
	for _, pattern := range []string{"/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server", "/opt/rabbitmq*/sbin/rabbitmq-server"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			script = found[len(found)-1]
			break
		}
	}
	if script == "" {
		return "", "", missing("rabbitmq-server", "is not installed")
	}
	if epmd, err = exec.LookPath("epmd"); err != nil {
		return "", "", missing("epmd, which RabbitMQ needs,", "is not installed")
	}
	return script, epmd, nil
}

// The oldest nats-server that the tests start; make brokers installs a newer
// one than most systems have.
const natsMajor, natsMinor = 2, 12

var natsVersion = regexp.MustCompile(`v(\d+)\.(\d+)\.`)

func findNATS() (string, error) {
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
				return path, nil
			}
		}
		why = fmt.Sprintf("at %s is too old: want %d.%d or newer", path, natsMajor, natsMinor)
	}
	return "", missing("nats-server", why)
}

func findRedis() (string, error) {
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", missing("redis-server", "is not installed")
}
