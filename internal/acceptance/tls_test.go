package acceptance_test

import (
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestTLS: a message goes through each broker under TLS; a connection to which
// the wrong one answers, or that shows the wrong certificate, is refused with a
// word on the reason.
func TestTLS(t *testing.T) {
	for _, scheme := range []string{"amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			b := testbroker.StartSecured(t, scheme)
			whole := b.SecureURL() + "&cert=" + b.Cert + "&key=" + b.Key

			conn := open(t, whole)
			declare(t, conn, routing.Topology{Queues: []routing.Queue{{Name: "q"}}})
			ctx := within(t, 30*time.Second)
			if err := publisher(t, conn, "").Publish(ctx, &polymq.Message{Key: "q", Body: []byte("secret")}); err != nil {
				t.Fatal(err)
			}
			d, err := subscriber(t, conn, "q", 1).Receive(ctx)
			if err != nil || string(d.Message.Body) != "secret" {
				t.Fatalf("%v, %v", d, err)
			}
			if err := d.Ack(ctx); err != nil {
				t.Fatal(err)
			}

			roots := strings.Replace(whole, "&ca="+b.CA, "", 1)
			for name, c := range map[string]struct{ url, want string }{
				"a broker of an authority that is not known": {roots, "unknown authority"},
				"a broker of another authority than named":   {roots + "&ca=" + b.ForeignCA, "unknown authority"},
				"a broker by another name":                   {strings.Replace(whole, "@localhost:", "@127.0.0.1:", 1), "127.0.0.1"},
				"a foreign client":                           {b.SecureURL() + "&cert=" + b.ForeignCert + "&key=" + b.ForeignKey, ""},
			} {
				conn, err := polymq.Open(within(t, 20*time.Second), c.url, nil)
				if err == nil {
					t.Errorf("%s: connected", name)
					_ = conn.Close(t.Context())
					continue
				}
				if !strings.Contains(err.Error(), c.want) || t.Context().Err() != nil {
					t.Errorf("%s: %v, want something about %q", name, err, c.want)
				}
				t.Logf("%s: %v", name, err)
			}
			ways := map[string]string{
				"unchecked":   roots + "&verify=none",
				"by its name": strings.Replace(whole, "@localhost:", "@127.0.0.1:", 1) + "&server-name=localhost",
			}
			if scheme == "amqp" {
				at := strings.IndexByte(whole, '@')
				ways["as whom its certificate names"] = "amqps://" + whole[at+1:] + "&auth=external"
				ways["without a certificate"] = b.SecureURL()
			}
			for name, url := range ways {
				conn := open(t, url)
				if err := conn.Health(ctx); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}
