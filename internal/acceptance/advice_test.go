package acceptance_test

import (
	"errors"
	"net"
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
			url := testbroker.URL(t, scheme)
			rest := url[strings.LastIndex(url, "@")+1:]
			_, err = polymq.Open(within(t, 20*time.Second), scheme+"://nobody:wrong@"+strings.TrimPrefix(rest, scheme+"://"), nil)
			if !errors.Is(err, polymq.ErrPermission) || !strings.Contains(err.Error(), "check the user name and password") {
				t.Errorf("a wrong password: %v", err)
			}
		})
	}
}
