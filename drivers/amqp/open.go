package amqp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
)

func init() {
	polymq.Register("amqp", Driver{})
	polymq.Register("amqps", Driver{})
}

// Driver opens connections to RabbitMQ.
type Driver struct{}

// settings is what a URL says.
type settings struct {
	addrs       []string
	tls         *tls.Config // nil: in clear
	external    bool        // the client's certificate says who it is
	user        string
	password    driver.Secret
	vhost       string
	name        string
	heartbeat   time.Duration
	dialTimeout time.Duration
	management  string
}

func parse(u *driver.URL) (settings, error) {
	s := settings{user: "guest", password: driver.NewSecret("guest"), vhost: "/"}
	port := 5672
	if u.Scheme == "amqps" {
		port = 5671
		s.tls = u.TLS()
		s.external = u.OneOf("auth", "plain", "external") == "external"
	}
	s.addrs = u.Addrs(port)
	if u.HasUser {
		s.user, s.password = u.User, driver.NewSecret(u.Password)
	}
	if u.Path != "" {
		s.vhost = u.Path
	}
	s.name = u.Text("name", "polymq")
	s.heartbeat = u.Duration("heartbeat", 10*time.Second, time.Second, time.Hour)
	s.dialTimeout = u.Duration("connect-timeout", 10*time.Second, 100*time.Millisecond, time.Hour)
	s.management = u.Text("management", "")
	return s, u.Rest()
}

// Open implements driver.Driver.
func (Driver) Open(ctx context.Context, u *driver.URL, cfg driver.Config) (driver.Conn, error) {
	s, err := parse(u)
	if err != nil {
		return nil, err
	}
	m, err := newManagement(s)
	if err != nil {
		return nil, err
	}
	return newConn(ctx, s, m, cfg)
}

// frameSize is RabbitMQ's default; a broker may ask for less.
const frameSize = 131072

// dial makes one connection to one host. The wire's hooks are set by prepare,
// before the first byte is read.
func (s *settings) dial(ctx context.Context, addr, role string, prepare func(*wire)) (*amqp091.Connection, *patient, error) {
	ctx, cancel := context.WithTimeout(ctx, s.dialTimeout)
	defer cancel()
	tcp, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	// The handshake below knows no ctx; it ends when its socket does.
	stop := context.AfterFunc(ctx, func() { tcp.Close() })
	defer stop()
	p := newPatient(tcp, max(2*s.heartbeat, 5*time.Second))
	var nc net.Conn = p
	if s.tls != nil {
		cfg := s.tls.Clone()
		if cfg.ServerName == "" {
			cfg.ServerName, _, _ = net.SplitHostPort(addr)
		}
		t := tls.Client(p, cfg)
		if err := t.HandshakeContext(ctx); err != nil {
			tcp.Close()
			return nil, nil, err
		}
		nc = t
	}
	w := newWire(nc)
	prepare(w)
	var auth amqp091.Authentication = &amqp091.PlainAuth{Username: s.user, Password: s.password.Text()}
	if s.external {
		auth = &amqp091.ExternalAuth{}
	}
	conn, err := amqp091.Open(w, amqp091.Config{
		SASL:      []amqp091.Authentication{auth},
		Vhost:     s.vhost,
		Heartbeat: s.heartbeat,
		FrameSize: frameSize,
		Locale:    "en_US",
		Properties: amqp091.Table{
			"product":         "polymq",
			"platform":        "golang",
			"connection_name": s.name + " " + role,
			"capabilities":    amqp091.Table{},
		},
	})
	if err == nil {
		if err = checkBroker(conn.Properties); err == nil {
			if stop() {
				p.heartbeats(conn.Config.Heartbeat)
				return conn, p, nil
			}
			err = ctx.Err()
		}
	}
	if conn != nil {
		tcp.Close()
		conn.Close()
	}
	w.Close()
	if ctx.Err() != nil { // amqp091 has seen but a closed socket
		err = fmt.Errorf("no answer as RabbitMQ gives it: is this its port for AMQP? %w", ctx.Err())
	}
	if err = wrap(err); errors.Is(err, driver.ErrPermission) {
		err = fmt.Errorf("check the user name and password of the URL, and the user's permissions on the vhost: %w", err)
	}
	return nil, nil, err
}

// checkBroker refuses what the driver's promises were not shown on.
func checkBroker(properties amqp091.Table) error {
	product, _ := properties["product"].(string)
	version, _ := properties["version"].(string)
	if product != "RabbitMQ" {
		return fmt.Errorf("%w: the broker is %q %s: this driver wants RabbitMQ 3.10 or newer", errors.ErrUnsupported, product, version)
	}
	if v := parseVersion(version); !v.atLeast(3, 10) {
		return fmt.Errorf("%w: RabbitMQ %s is too old: want 3.10 or newer", errors.ErrUnsupported, version)
	}
	return nil
}

// version is a broker's major and minor version.
type version struct{ major, minor int }

func parseVersion(s string) version {
	var v version
	major, rest, _ := strings.Cut(s, ".")
	minor, _, _ := strings.Cut(rest, ".")
	v.major, _ = strconv.Atoi(major)
	v.minor, _ = strconv.Atoi(minor)
	return v
}

func (v version) atLeast(major, minor int) bool {
	return v.major > major || v.major == major && v.minor >= minor
}
