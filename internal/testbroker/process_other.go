//go:build !linux

package testbroker

import (
	"errors"
	"os/exec"
	"time"
)

var errElsewhere = errors.New("tests start brokers on Linux only: name yours in POLYMQ_TEST_AMQP_URL, POLYMQ_TEST_NATS_URL and POLYMQ_TEST_REDIS_URL, or leave brokers out with -short")

type process struct{}

func startProcess(*exec.Cmd) (*process, error) { return nil, errElsewhere }

func (*process) pid() int           { return 0 }
func (*process) ended() bool        { return true }
func (*process) kill()              {}
func (*process) stop(time.Duration) {}
func (*process) pause()             {}
func (*process) resume()            {}

func scratch() (string, error)   { return "", errElsewhere }
func removeScratch(string) error { return nil }
