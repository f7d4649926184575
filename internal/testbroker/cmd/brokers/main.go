// Brokers runs a command with brokers for its tests:
//
//	go run ./internal/testbroker/cmd/brokers go test ./...
//
// It starts RabbitMQ, NATS and Redis (those that POLYMQ_TEST_*_URL does not
// name), runs the command with their URLs in its environment, stops them, and
// exits as the command did. They are gone however this process ends.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/polymq/polymq/internal/testbroker"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: brokers command [argument ...]")
		os.Exit(2)
	}
	code, err := run(os.Args[1], os.Args[2:]...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "brokers:", err)
	}
	os.Exit(code)
}

func run(name string, args ...string) (int, error) {
	// The command gets what a terminal sends too; this process outlives it to
	// clean up.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	env, stop, err := testbroker.Run()
	if err != nil {
		return 1, err
	}
	defer stop()
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s)
		case err := <-done:
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return max(exit.ExitCode(), 1), nil
			}
			if err != nil {
				return 1, err
			}
			return 0, nil
		}
	}
}
