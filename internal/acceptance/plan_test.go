package acceptance_test

import (
	"errors"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

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

// Bindings that differ in nothing but the type of an argument are each planned, also
// where the broker's API shows them alike; one that is listed twice is one.
func TestPlanOfLikeBindings(t *testing.T) {
	for _, scheme := range []string{"mem", "nats", "redis", "amqp"} {
		t.Run(scheme, func(t *testing.T) {
			conn := open(t, testbroker.URL(t, scheme))
			bound := func(arg any) routing.Binding {
				return routing.Binding{Exchange: "amq.headers", Queue: "q", Args: map[string]any{"a": arg}}
			}
			all := []routing.Binding{bound("x"), bound([]byte("x")), bound(int64(1e9)), bound(time.Unix(1e9, 0)), bound("undefined"), bound(nil)}
			want := routing.Topology{Queues: []routing.Queue{{Name: "q"}}, Bindings: slices.Concat(all, all)}
			wantPlan := func(t2 routing.Topology, create, extra int) routing.Plan {
				t.Helper()
				p, err := conn.Plan(t.Context(), t2)
				if err != nil {
					t.Fatal(err)
				}
				if len(p.Create.Bindings) != create || len(p.Extra.Bindings) != extra {
					t.Errorf("the plan is\n%v\nwant %d bindings to create and %d extra", p, create, extra)
				}
				return p
			}
			planned := wantPlan(want, len(all), 0).Create.Bindings
			for _, b := range all {
				if !slices.ContainsFunc(planned, func(p routing.Binding) bool { return reflect.DeepEqual(p, b) }) {
					t.Errorf("%#v is not in the plan", b)
				}
			}
			declare(t, conn, routing.Topology{Queues: want.Queues, Bindings: all[1:2]})
			wantPlan(want, len(all)-1, 0)
			declare(t, conn, want)
			if p := wantPlan(want, 0, 0); !p.Done() {
				t.Errorf("after Declare the plan is\n%v", p)
			}
			wantPlan(routing.Topology{Queues: want.Queues, Bindings: all[:1]}, 0, len(all)-1)
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
