package redis

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

func init() {
	for _, scheme := range []string{"redis", "rediss", "valkey", "valkeys"} {
		polymq.Register(scheme, Driver{})
	}
}

// Driver opens the URLs of redis, rediss, valkey and valkeys.
type Driver struct{}

// Open connects to the server, checks its version and loads the library.
func (Driver) Open(ctx context.Context, u *driver.URL, c driver.Config) (driver.Conn, error) {
	cfg, err := parse(u)
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, cfg, c.Logger, c.OnState)
	if err != nil {
		return nil, err
	}
	conn, err := emulate.New(ctx, s, emulate.Config{Logger: c.Logger})
	if err != nil {
		_ = s.Close(ctx)
		return nil, err
	}
	return conn, nil
}

func parse(u *driver.URL) (config, error) {
	cfg := config{
		prefix:   "polymq:{" + escape(u.Text("vhost", "default")),
		lease:    u.Duration("lease", 30*time.Second, time.Second, time.Hour),
		timeout:  u.Duration("timeout", 3*time.Second, 100*time.Millisecond, time.Minute),
		pool:     u.Int("pool", 10, 1, 1000),
		memory:   u.OneOf("durability", "aof", "memory") == "memory",
		user:     u.User,
		password: u.Password,
	}
	if u.Scheme == "rediss" || u.Scheme == "valkeys" {
		cfg.tls = u.TLS()
	}
	if err := u.Rest(); err != nil {
		return cfg, err
	}
	if len(u.Hosts) > 1 {
		return cfg, fmt.Errorf("the URL names %d hosts: %s takes one", len(u.Hosts), u.Scheme)
	}
	if u.Path != "" {
		db, err := strconv.Atoi(u.Path)
		if err != nil || db < 0 {
			return cfg, fmt.Errorf("the URL's path is the number of a database, 0 by default, not %q: the namespace is ?vhost=", u.Path)
		}
		cfg.db = db
	}
	cfg.addr = u.Addrs(6379)[0]
	if cfg.tls != nil && cfg.tls.ServerName == "" {
		cfg.tls.ServerName, _, _ = net.SplitHostPort(cfg.addr)
	}
	return cfg, nil
}

// escape keeps letters, digits and "-", "_", "."; all else is percent-encoded,
// the braces and colons that structure keys among it.
func escape(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
