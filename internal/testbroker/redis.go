package testbroker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

type redis struct{}

func (redis) scheme() string { return "redis" }
func (redis) title() string  { return "Redis" }

func (redis) launch(s *server) error {
	if s.tls == nil {
		return redis{}.run(s)
	}
	program, err := findRedis()
	if err != nil {
		return err
	}
	if err := s.tls.copy(s.dir); err != nil {
		return err
	}
	home := program.home(s.dir)
	return redis{}.run(s, "--tls-port", strconv.Itoa(s.ports[1]), "--tls-auth-clients", "yes",
		"--tls-ca-cert-file", filepath.Join(home, "ca.crt"), "--tls-cert-file", filepath.Join(home, "server.crt"), "--tls-key-file", filepath.Join(home, "server.key"))
}

// run starts the server with further arguments.
func (redis) run(s *server, args ...string) error {
	program, err := findRedis()
	if err != nil {
		return err
	}
	dir := program.home(s.dir)
	if s.setup.Disk > 0 {
		dir = filepath.Join(dir, dataFolder)
	}
	fsync := "everysec"
	if s.setup.Fsync {
		fsync = "always"
	}
	return s.run(program.command(append([]string{
		"--bind", "127.0.0.1", "--port", strconv.Itoa(s.ports[0]), "--requirepass", s.password,
		"--dir", dir, "--appendonly", "yes", "--appendfsync", fsync, "--save", "", "--daemonize", "no",
	}, args...)...))
}

func (redis) ready(ctx context.Context, s *server) error {
	return tell(ctx, s, "PING")
}

func (redis) url(s *server) string {
	return fmt.Sprintf("redis://:%s@%s/0", s.password, s.address(0))
}

func (redis) secureURL(s *server) string {
	return fmt.Sprintf("rediss://:%s@localhost:%d/0?timeout=3s", s.password, s.ports[1])
}

func (redis) fresh(_ context.Context, base, name string) (string, error) {
	return withNamespace(base, name)
}

// remove deletes the keys of the namespace: those that contain its name.
func (redis) remove(ctx context.Context, base, name string) error {
	c, err := dialRedis(ctx, base)
	if err != nil {
		return err
	}
	defer c.Close()
	for cursor := "0"; ; {
		reply, err := c.do("SCAN", cursor, "MATCH", "*"+name+"*", "COUNT", "1000")
		if err != nil {
			return err
		}
		page, ok := reply.([]any)
		if !ok || len(page) != 2 {
			return fmt.Errorf("redis-server: SCAN answers %v", reply)
		}
		keys, _ := page[1].([]any)
		for _, key := range keys {
			if _, err := c.do("UNLINK", key.(string)); err != nil {
				return err
			}
		}
		if cursor, _ = page[0].(string); cursor == "0" {
			return nil
		}
	}
}

// A redisConn speaks just enough of the protocol to look after keys. It shares
// no code with the driver under test.
type redisConn struct {
	net.Conn
	r *bufio.Reader
}

func dialRedis(ctx context.Context, base string) (*redisConn, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	conn, err := dial(ctx, u, "6379")
	if err != nil {
		return nil, err
	}
	c := &redisConn{conn, bufio.NewReader(conn)}
	if password, ok := u.User.Password(); ok {
		auth := []string{"AUTH", password}
		if user := u.User.Username(); user != "" {
			auth = []string{"AUTH", user, password}
		}
		_, err = c.do(auth...)
	}
	if db := strings.Trim(u.Path, "/"); err == nil && db != "" {
		_, err = c.do("SELECT", db)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// do sends a command and returns a string, an int64, nil or a []any of these.
func (c *redisConn) do(args ...string) (any, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(c, b.String()); err != nil {
		return nil, err
	}
	return c.reply()
}

func (c *redisConn) reply() (any, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimSpace(line)
	if line == "" {
		return nil, errors.New("redis-server: an empty reply")
	}
	text := line[1:]
	switch line[0] {
	case '+':
		return text, nil
	case '-':
		return nil, errors.New("redis-server: " + text)
	case ':':
		return strconv.ParseInt(text, 10, 64)
	case '$':
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return nil, err
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(c.r, b); err != nil {
			return nil, err
		}
		return string(b[:n]), nil
	case '*':
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return nil, err
		}
		list := make([]any, n)
		for i := range list {
			if list[i], err = c.reply(); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	return nil, fmt.Errorf("redis-server: %q", line)
}
