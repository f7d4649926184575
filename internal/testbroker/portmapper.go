package testbroker

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// A portMapper is Erlang's. The first node would start one that outlives it;
// and the nodes of a cluster share one, which must outlive each of them.
type portMapper struct{ rabbitMQ }

func (portMapper) title() string { return "epmd" }

func (portMapper) launch(s *server) error {
	_, epmd, err := findRabbitMQ()
	if err != nil {
		return err
	}
	if err := s.run(epmd.command("-address", "127.0.0.1", "-port", strconv.Itoa(s.ports[epmdPort]))); err != nil {
		return err
	}
	if err := awaitPort(s.address(epmdPort), 10*time.Second); err != nil {
		return fmt.Errorf("epmd: %w", err)
	}
	return nil
}

func (portMapper) ready(context.Context, *server) error { return nil }
