package acceptance_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// A plan that says create must not be one that Declare refuses.
func TestPlanRefuses(t *testing.T) {
	for _, scheme := range []string{"mem", "nats", "redis", "amqp"} {
		t.Run(scheme, func(t *testing.T) {
			conn := open(t, testbroker.URL(t, scheme))
			for _, q := range []routing.Queue{{Name: "q", Args: map[string]any{"x-none": 1}}, {Name: "q", Type: "stream"}} {
				_, err := conn.Plan(t.Context(), routing.Topology{Queues: []routing.Queue{q}})
				declared := conn.Declare(t.Context(), routing.Topology{Queues: []routing.Queue{q}})
				if !errors.Is(err, errors.ErrUnsupported) || !errors.Is(declared, errors.ErrUnsupported) {
					t.Errorf("of %+v Plan says %v, Declare %v", q, err, declared)
				}
			}
			if _, err := conn.Plan(t.Context(), routing.Topology{Queues: []routing.Queue{{}}}); !errors.Is(err, polymq.ErrInvalid) {
				t.Errorf("of a queue without a name Plan says %v", err)
			}
		})
	}
}

func TestPlanWithoutManagement(t *testing.T) {
	u, err := url.Parse(testbroker.URL(t, "amqp"))
	if err != nil {
		t.Fatal(err)
	}
	u.RawQuery = ""
	_, err = open(t, u.String()).Plan(t.Context(), routing.Topology{})
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "?management=") {
		t.Errorf("without the management option Plan says %v", err)
	}
}
