package testbroker

import (
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/polymq/polymq/internal/testcert"
)

// A Secured broker also takes connections with TLS, on another port or on the
// same. Its certificate is for localhost; a client's certificate must be of the
// authority of CA, and is demanded by NATS and Redis. RabbitMQ also takes the
// common name of one for a user's name (EXTERNAL).
type Secured struct {
	*Broker
	// PEM files: the authority, and a client's certificate and key of it, and
	// the same of an authority that the broker does not know.
	CA, Cert, Key                      string
	ForeignCA, ForeignCert, ForeignKey string
}

// ClientName is the common name in a client's certificate. RabbitMQ has a user
// of this name, without a password.
const ClientName = "tester"

// StartSecured is Start with TLS.
func StartSecured(t testing.TB, scheme string) *Secured {
	t.Helper()
	dir := t.TempDir()
	ours, foreign := testcert.Authority(t, "polymq test"), testcert.Authority(t, "foreign")
	s := new(Secured)
	s.CA, _ = ours.Write(t, dir, "ca")
	s.Cert, s.Key = ours.Client(t, ClientName).Write(t, dir, "client")
	s.ForeignCA, _ = foreign.Write(t, dir, "foreign-ca")
	s.ForeignCert, s.ForeignKey = foreign.Client(t, ClientName).Write(t, dir, "foreign")
	ours.Server(t, "localhost").Write(t, dir, "server")
	s.Broker = begin(t, scheme, Setup{}, func(s *server) { s.tls = &certificates{dir} })
	s.awaitTLS(t)
	if scheme == (rabbitMQ{}).scheme() {
		for _, call := range [][2]string{
			{"/api/users/" + ClientName, `{"password_hash":"","tags":""}`},
			{"/api/permissions/%2F/" + ClientName, `{"configure":".*","write":".*","read":".*"}`},
		} {
			if err := manage(t.Context(), s.URL(), http.MethodPut, call[0], call[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

// awaitTLS waits for the port with TLS, which RabbitMQ opens after the other one.
func (s *Secured) awaitTLS(t testing.TB) {
	t.Helper()
	u, err := url.Parse(s.SecureURL())
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial("tcp", u.Host)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the port with TLS: %v", err)
		}
	}
}

// SecureURL addresses the broker with TLS, and with a user who may do anything.
// It ends where further options can be appended, each with a & before it.
func (s *Secured) SecureURL() string { return s.server.kind.secureURL(s.server) + "&ca=" + s.CA }

// certificates are the files ca.crt, server.crt and server.key in dir.
type certificates struct{ dir string }

// copy brings them to where the broker finds them, be it in another root.
func (c *certificates) copy(dir string) error {
	for _, name := range []string{"ca.crt", "server.crt", "server.key"} {
		b, err := os.ReadFile(filepath.Join(c.dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
