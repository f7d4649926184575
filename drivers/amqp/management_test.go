package amqp

import (
	"context"
	"net"
	"slices"
	"testing"

	"github.com/polymq/polymq/routing"
)

// TestManagementOfSeveral: the first host that answers does, whatever the others.
func TestManagementOfSeveral(t *testing.T) {
	for address, want := range map[string][]string{
		"http://h:1/p":                 {"http://h:1/p"},
		"https://u:a,b@h:1,i:2,[::1]/": {"https://h:1", "https://i:2", "https://[::1]"},
		"http://h,i/a,b":               {"http://h/a,b", "http://i/a,b"},
	} {
		m, err := newManagement(settings{management: address})
		check(t, err)
		if !slices.Equal(m.bases, want) {
			t.Errorf("%s: %v, want %v", address, m.bases, want)
		}
	}
	for _, wrong := range []string{"h:1,i:2", "http://h,,i", "http://h:x,i:1"} {
		if m, err := newManagement(settings{management: wrong}); err == nil {
			t.Errorf("%s is taken: %v", wrong, m.bases)
		}
	}

	c := open(t)
	declare(t, c, routing.Queue{Name: "q", MaxAttempts: 3})
	hanging, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer hanging.Close()
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	dead.Close()
	c.management.bases = []string{"http://" + dead.Addr().String(), "http://" + hanging.Addr().String(), c.management.bases[0]}
	ctx, cancel := context.WithTimeout(ctxOf(t), 3*managementTime)
	defer cancel()
	q, err := c.management.queue(ctx, "q")
	if err != nil || q.kind() != (queueKind{kind: typeQuorum, limit: 3}) {
		t.Errorf("%+v, %v", q.kind(), err)
	}
	// None answers: the broker does.
	c.management.bases = c.management.bases[1:2]
	if k, err := c.kindOf(ctxOf(t), "q"); err != nil || k != (queueKind{kind: typeQuorum, limit: 3}) {
		t.Errorf("%+v, %v", k, err)
	}
}
