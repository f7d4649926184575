package driver_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testcert"
)

// shake connects a client to a server that wants a certificate of ca, and is
// who the client said it is. It must have asked for the name that it checks (SNI),
// without which a proxy does not know where to.
func shake(t *testing.T, client *tls.Config, server, ca *testcert.Certificate) (string, error) {
	t.Helper()
	clients := x509.NewCertPool()
	clients.AddCert(ca.X509)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	seen := make(chan *x509.Certificate, 1)
	go func() {
		defer close(seen)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		s := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{server.Pair()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				if hello.ServerName != client.ServerName {
					t.Errorf("the client asked for the server %q, want %q", hello.ServerName, client.ServerName)
				}
				return nil, nil
			}})
		if s.Handshake() == nil {
			seen <- s.ConnectionState().PeerCertificates[0]
		}
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := tls.Client(conn, client)
	if err = c.Handshake(); err == nil {
		_, err = c.Read(make([]byte, 1)) // the server's word on the certificate comes after the client's handshake
	}
	conn.Close()
	if who := <-seen; who != nil {
		return who.Subject.CommonName, nil
	}
	return "", err
}

func parseTLS(t *testing.T, options url.Values) (*tls.Config, error) {
	t.Helper()
	u, err := driver.ParseURL("amqps://h?" + options.Encode())
	if err != nil {
		t.Fatal(err)
	}
	c := u.TLS()
	return c, u.Rest()
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ours, foreign := testcert.Authority(t, "ours"), testcert.Authority(t, "foreign")
	server := ours.Server(t, "broker.example")
	ca, _ := ours.Write(t, dir, "ca")
	foreignCA, _ := foreign.Write(t, dir, "foreign")
	cert, key := ours.Client(t, "tester").Write(t, dir, "client")
	stranger, strangerKey := foreign.Client(t, "stranger").Write(t, dir, "stranger")

	options := func(pairs ...string) url.Values {
		v := url.Values{"ca": {ca}, "cert": {cert}, "key": {key}, "server-name": {"broker.example"}}
		for i := 0; i < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return v
	}
	for name, c := range map[string]struct {
		options url.Values
		want    string
	}{
		"all is well":                 {options(), ""},
		"the wrong name":              {options("server-name", "other.example"), "valid for broker.example"},
		"a foreign authority":         {options("ca", foreignCA), "unknown authority"},
		"unchecked":                   {options("ca", foreignCA, "server-name", "other.example", "verify", "none"), ""},
		"a client of another's":       {options("cert", stranger, "key", strangerKey), "bad certificate"},
		"the system's roots know not": {url.Values{"server-name": {"broker.example"}}, "unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := parseTLS(t, c.options)
			if err != nil {
				t.Fatal(err)
			}
			who, err := shake(t, client, server, ours)
			if c.want == "" {
				if who != "tester" {
					t.Errorf("the server saw %q (%v)", who, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) && !strings.Contains(err.Error(), "unknown certificate authority") {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}

	t.Run("a renewed certificate is taken", func(t *testing.T) {
		client, err := parseTLS(t, options())
		if err != nil {
			t.Fatal(err)
		}
		ours.Client(t, "renewed").Write(t, dir, "client")
		if who, err := shake(t, client, server, ours); who != "renewed" {
			t.Errorf("the server saw %q (%v)", who, err)
		}
	})
}

func TestTLSRefuses(t *testing.T) {
	cert, key := testcert.Authority(t, "one").Write(t, t.TempDir(), "one")
	_, otherKey := testcert.Authority(t, "two").Write(t, t.TempDir(), "two")
	for name, c := range map[string]struct {
		options url.Values
		want    string
	}{
		"no such roots":        {url.Values{"ca": {filepath.Join(t.TempDir(), "none.pem")}}, "URL option ca: open"},
		"roots without any":    {url.Values{"ca": {key}}, "no certificate in PEM form"},
		"a key alone":          {url.Values{"key": {key}}, "belong together"},
		"a certificate alone":  {url.Values{"cert": {cert}}, "belong together"},
		"another's key":        {url.Values{"cert": {cert}, "key": {otherKey}}, "private key does not match"},
		"a checking half done": {url.Values{"verify": {"some"}}, "one of full, none"},
	} {
		_, err := parseTLS(t, c.options)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		if name == "no such roots" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the file system's error is out of reach: %v", name, err)
		}
	}
}
