package guides

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
)

// secured adds what a broker with its own authority needs to a URL such as
// amqps://user:password@broker.internal.
func secured(broker, ca, cert, key string) string {
	options := url.Values{"ca": {ca}, "cert": {cert}, "key": {key}}
	return broker + "?" + options.Encode()
}

func TestTLS(t *testing.T) {
	for _, scheme := range []string{"amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			b := testbroker.StartSecured(t, scheme)
			plain, _, _ := strings.Cut(b.SecureURL(), "?")
			conn, err := polymq.Open(within(t), secured(plain, b.CA, b.Cert, b.Key), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
	}
}
