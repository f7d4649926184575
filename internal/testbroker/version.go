package testbroker

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

var versionText = regexp.MustCompile(`\d+\.\d+\.\d+\S*`)

// Version is the version of the broker that is started for a scheme when server
// is the value of POLYMQ_TEST_<SCHEME>_SERVER; "" is what is installed.
func Version(scheme, server string) (string, error) {
	var p program
	var err error
	arg := "--version"
	switch {
	case server != "":
		p = programAt(server)
	case scheme == "nats":
		p, err = findNATS()
	case scheme == "redis":
		p, err = findRedis()
	default:
		p, _, err = findRabbitMQ()
	}
	if err != nil {
		return "", err
	}
	if scheme == "amqp" {
		p.path, arg = filepath.Join(filepath.Dir(p.path), "rabbitmqctl"), "version"
	}
	dir, err := os.MkdirTemp("", "polymq-version-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	cmd := p.command(arg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+p.home(dir))
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", p.path, arg, err)
	}
	version := versionText.FindString(string(out))
	if version == "" {
		return "", fmt.Errorf("%s %s tells no version: %.200q", p.path, arg, out)
	}
	return version, nil
}
