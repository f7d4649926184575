package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

func init() {
	for _, scheme := range []string{"redis", "rediss", "valkey", "valkeys"} {
		for way := range ways {
			polymq.Register(scheme+way, Driver{})
		}
	}
}

// ways are how the servers are found, by the end of the URL's scheme.
var ways = map[string]finder{
	"":          nil, // it is the URL's host
	"+sentinel": (*servers).askSentinels,
	"+cluster":  (*servers).askCluster,
}

// Driver opens the URLs of redis, rediss, valkey and valkeys, of each with
// +sentinel and +cluster.
type Driver struct{}

// Open connects to the servers, checks their versions and loads the library.
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
	durability := u.OneOf("durability", "aof", "memory", "fsync")
	cfg := config{
		prefix:   "polymq:{" + escape(u.Text("vhost", "default")),
		lease:    u.Duration("lease", 30*time.Second, time.Second, time.Hour),
		timeout:  u.Duration("timeout", 3*time.Second, 100*time.Millisecond, time.Minute),
		pool:     u.Int("pool", 10, 1, 1000),
		memory:   durability == "memory",
		block:    maxBlock,
		safe:     safety{replicas: u.Int("replicas", 0, 0, 100), fsync: durability == "fsync"},
		user:     u.User,
		password: driver.NewSecret(u.Password),
	}
	scheme, way, _ := strings.Cut(u.Scheme, "+")
	if way != "" {
		way = "+" + way
	}
	cfg.find = ways[way]
	if scheme == "rediss" || scheme == "valkeys" {
		cfg.tls = u.TLS()
	}
	port := 6379
	if way == "+sentinel" {
		port = 26379
		cfg.master = u.Text("master", "")
		cfg.sentinelUser = u.Text("sentinel-user", "")
		cfg.sentinelPassword = driver.NewSecret(u.Text("sentinel-password", ""))
	}
	cfg.addrs = u.Addrs(port)
	if err := u.Rest(); err != nil {
		return cfg, err
	}
	switch {
	case way == "" && len(u.Hosts) > 1:
		return cfg, fmt.Errorf("the URL names %d hosts: %s takes one; %[2]s+sentinel and %[2]s+cluster take several", len(u.Hosts), u.Scheme)
	case way == "+sentinel" && cfg.master == "":
		return cfg, errors.New("the URL has no option master: by what name do the sentinels know the server?")
	case way == "+cluster" && u.Path != "" && u.Path != "0":
		return cfg, errors.New("the URL names a database, and a Redis Cluster has only 0: the namespace is ?vhost=")
	}
	if u.Path != "" {
		db, err := strconv.Atoi(u.Path)
		if err != nil || db < 0 {
			return cfg, fmt.Errorf("the URL's path is the number of a database, 0 by default, not %q: the namespace is ?vhost=", u.Path)
		}
		cfg.db = db
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
