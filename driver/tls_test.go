package driver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
)

// An authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	return (*authority)(nil).sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
}

// sign makes a certificate: by itself where a is nil.
func (a *authority) sign(t *testing.T, template *x509.Certificate) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	by := &authority{template, key}
	if a != nil {
		by = a
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, &key.PublicKey, by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

// write makes the PEM files of the certificate and its key.
func (a *authority) write(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: a.cert.Raw}, key: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func (a *authority) pair() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{a.cert.Raw}, PrivateKey: a.key}
}

// shake connects a client to a server that wants a certificate of ca, and is
// who the client said it is.
func shake(t *testing.T, client *tls.Config, server *authority, ca *authority) (string, error) {
	t.Helper()
	clients := x509.NewCertPool()
	clients.AddCert(ca.cert)
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
		s := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{server.pair()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients})
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
	ours, foreign := newAuthority(t, "ours"), newAuthority(t, "foreign")
	server := ours.sign(t, &x509.Certificate{DNSNames: []string{"broker.example"}, KeyUsage: x509.KeyUsageDigitalSignature})
	caFile, _ := ours.write(t, t.TempDir())
	foreignFile, _ := foreign.write(t, t.TempDir())
	dir := t.TempDir()
	certFile, keyFile := ours.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "tester"}}).write(t, dir)
	strange, strangeKey := foreign.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "stranger"}}).write(t, t.TempDir())

	options := func(pairs ...string) url.Values {
		v := url.Values{"ca": {caFile}, "cert": {certFile}, "key": {keyFile}, "server-name": {"broker.example"}}
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
		"a foreign authority":         {options("ca", foreignFile), "unknown authority"},
		"unchecked":                   {options("ca", foreignFile, "server-name", "other.example", "verify", "none"), ""},
		"a client of another's":       {options("cert", strange, "key", strangeKey), "bad certificate"},
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
		ours.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "renewed"}}).write(t, dir)
		if who, err := shake(t, client, server, ours); who != "renewed" {
			t.Errorf("the server saw %q (%v)", who, err)
		}
	})
}

func TestTLSRefuses(t *testing.T) {
	cert, key := newAuthority(t, "one").write(t, t.TempDir())
	_, otherKey := newAuthority(t, "two").write(t, t.TempDir())
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
