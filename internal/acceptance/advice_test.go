package acceptance_test

import (
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
)

// TestAdvice: what goes wrong on the first day says what to do.
func TestAdvice(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	for _, scheme := range []string{"amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			_, err := polymq.Open(within(t, 20*time.Second), scheme+"://"+nobody, nil)
			if err == nil || !strings.Contains(err.Error(), "start the broker") {
				t.Errorf("nothing listens: %v", err)
			}
			at := testbroker.URL(t, scheme)
			rest := at[strings.LastIndex(at, "@")+1:]
			_, err = polymq.Open(within(t, 20*time.Second), scheme+"://nobody:wrong@"+strings.TrimPrefix(rest, scheme+"://"), nil)
			if !errors.Is(err, polymq.ErrPermission) || !strings.Contains(err.Error(), "check the user name and password") {
				t.Errorf("a wrong password: %v", err)
			}
			secure := map[string]string{"amqp": "amqps", "nats": "tls+nats", "redis": "rediss"}[scheme]
			_, err = polymq.Open(within(t, 5*time.Second), strings.Replace(at, scheme, secure, 1), nil)
			if err == nil || !strings.Contains(err.Error(), "TLS") {
				t.Errorf("no TLS at the port: %v", err)
			}
			other := map[string]string{"amqp": "redis", "nats": "redis", "redis": "nats"}[scheme]
			_, err = polymq.Open(within(t, 5*time.Second), scheme+"://"+hostOf(t, testbroker.URL(t, other)), nil)
			if err == nil || !strings.Contains(err.Error(), "is this its port") {
				t.Errorf("another broker's port: %v", err)
			}
		})
	}
}

func hostOf(t *testing.T, at string) string {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}
