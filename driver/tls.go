package driver

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// TLS takes the options that say how the broker is checked and how the client
// shows who it is, the same for every scheme that encrypts:
//
//	ca           a PEM file of certificates to trust instead of the system's
//	cert, key    PEM files of the client's certificate, with its chain, and of its key
//	server-name  what the broker's certificate must be for, and the name sent to it
//	             (SNI), instead of the host's
//	verify       full, or none: any certificate is taken, so anybody between can read
//	             and change what is sent
//
// A file that cannot be used is an error of Rest. The files of cert and key are
// read again for each connection, so that a renewed certificate needs no
// restart; that of ca is read once. ServerName is empty unless server-name was
// given: the driver puts the name of the host in that it connects to.
func (u *URL) TLS() *tls.Config {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         u.Text("server-name", ""),
		InsecureSkipVerify: u.OneOf("verify", "full", "none") == "none",
	}
	if ca := u.Text("ca", ""); ca != "" {
		roots, err := readRoots(ca)
		if err != nil {
			u.errs = append(u.errs, fmt.Errorf("URL option ca: %w", err))
		}
		c.RootCAs = roots
	}
	cert, key := u.Text("cert", ""), u.Text("key", "")
	switch {
	case cert == "" && key == "":
		return c
	case cert == "" || key == "":
		u.errs = append(u.errs, errors.New("URL options cert and key belong together: one file has the certificate, the other its key"))
		return c
	}
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		u.errs = append(u.errs, fmt.Errorf("URL options cert and key: %w", err))
	}
	// Unlike Certificates, this also sends a certificate of which the broker does
	// not name the issuer: the broker then says what is wrong with it, instead of
	// that there was none.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		return &pair, err
	}
	return c
}

func readRoots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate in PEM form", file)
	}
	return roots, nil
}
