package testbroker

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

type nats struct{}

func (nats) scheme() string { return "nats" }
func (nats) title() string  { return "NATS" }

func (nats) launch(s *server) error {
	program, err := findNATS()
	if err != nil {
		return err
	}
	home := program.home(s.dir)
	users := s.users
	if users == "" {
		users = fmt.Sprintf("authorization { user: polymq, password: %q }", s.password)
	}
	conf := fmt.Sprintf("listen: %q\njetstream { store_dir: %q }\n%s\n", s.address(0), filepath.Join(home, dataFolder), users)
	if s.peers != nil {
		conf += clusterConf(s)
	}
	if s.tls != nil {
		if err := s.tls.copy(s.dir); err != nil {
			return err
		}
		conf += fmt.Sprintf("tls { ca_file: %q, cert_file: %q, key_file: %q, verify: true }\nallow_non_tls: true\n",
			filepath.Join(home, "ca.crt"), filepath.Join(home, "server.crt"), filepath.Join(home, "server.key"))
	}
	if err := os.WriteFile(filepath.Join(s.dir, "nats.conf"), []byte(conf), 0o600); err != nil {
		return err
	}
	return s.run(program.command("-c", filepath.Join(home, "nats.conf")))
}

func (nats) ready(ctx context.Context, s *server) error {
	if s.users != "" { // which of them could ask for JetStream?
		c, err := new(net.Dialer).DialContext(ctx, "tcp", s.address(0))
		if err != nil {
			return err
		}
		return c.Close()
	}
	c, err := dialNATS(ctx, nats{}.url(s))
	if err != nil {
		return err
	}
	defer c.Close()
	return c.request("$JS.API.INFO", nil, nil)
}

func (nats) url(s *server) string {
	if s.users != "" {
		return "nats://" + s.address(0)
	}
	return fmt.Sprintf("nats://polymq:%s@%s", s.password, s.address(0))
}

func (nats) secureURL(s *server) string {
	return fmt.Sprintf("tls+nats://polymq:%s@localhost:%d?replicas=1", s.password, s.ports[0])
}

func (nats) fresh(_ context.Context, base, name string) (string, error) {
	return withNamespace(base, name)
}

// remove deletes the streams of the namespace: those whose name contains its.
func (nats) remove(ctx context.Context, base, name string) error {
	c, err := dialNATS(ctx, base)
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		names, err := c.streams(name)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, stream := range names {
			if err := c.request("$JS.API.STREAM.DELETE."+stream, nil, nil); err != nil {
				return err
			}
		}
	}
}

// withNamespace sets the option that selects a namespace.
func withNamespace(base, name string) (string, error) {
	u, err := url.Parse(base)
	if err != nil {
		return "", err
	}
	q := u.Query()
	q.Set("vhost", name)
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// A natsConn speaks just enough of the protocol to look after streams. It
// shares no code with the driver under test.
type natsConn struct {
	net.Conn
	r *bufio.Reader
}

func dialNATS(ctx context.Context, base string) (*natsConn, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	conn, err := dial(ctx, u, "4222")
	if err != nil {
		return nil, err
	}
	password, _ := u.User.Password()
	hello, err := json.Marshal(map[string]any{"verbose": false, "user": u.User.Username(), "pass": password, "headers": true, "no_responders": true})
	if err != nil {
		return nil, err
	}
	c := &natsConn{conn, bufio.NewReader(conn)}
	if _, err = fmt.Fprintf(c, "CONNECT %s\r\nSUB _INBOX.polymq 1\r\nPING\r\n", hello); err == nil {
		_, err = c.next("PONG")
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// next reads up to the protocol line that begins with verb.
func (c *natsConn) next(verb string) (string, error) {
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, verb):
			return line, nil
		case strings.HasPrefix(line, "-ERR"), strings.HasPrefix(line, "HMSG"): // HMSG: nobody answers
			return "", fmt.Errorf("nats-server: %s", line)
		case line == "PING":
			if _, err := io.WriteString(c, "PONG\r\n"); err != nil {
				return "", err
			}
		}
	}
}

// request calls the JetStream API.
func (c *natsConn) request(subject string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if in == nil {
		body = nil
	}
	if _, err := fmt.Fprintf(c, "PUB %s _INBOX.polymq %d\r\n%s\r\n", subject, len(body), body); err != nil {
		return err
	}
	line, err := c.next("MSG")
	if err != nil {
		return err
	}
	fields := strings.Fields(line)
	n, err := strconv.Atoi(fields[len(fields)-1])
	if err != nil {
		return fmt.Errorf("nats-server: %s", line)
	}
	reply := make([]byte, n+2)
	if _, err := io.ReadFull(c.r, reply); err != nil {
		return err
	}
	var failed struct {
		Error *struct{ Description string }
	}
	if err := json.Unmarshal(reply, &failed); err != nil {
		return err
	}
	if failed.Error != nil {
		return fmt.Errorf("%s: %s", subject, failed.Error.Description)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(reply, out)
}

// streams lists the streams whose name contains part.
func (c *natsConn) streams(part string) ([]string, error) {
	var found []string
	for offset := 0; ; {
		var page struct {
			Total   int
			Streams []string
		}
		if err := c.request("$JS.API.STREAM.NAMES", map[string]int{"offset": offset}, &page); err != nil {
			return nil, err
		}
		for _, name := range page.Streams {
			if strings.Contains(name, part) {
				found = append(found, name)
			}
		}
		offset += len(page.Streams)
		if len(page.Streams) == 0 || offset >= page.Total {
			return found, nil
		}
	}
}

// dial connects to the host of u until ctx ends.
func dial(ctx context.Context, u *url.URL, port string) (net.Conn, error) {
	if p := u.Port(); p != "" {
		port = p
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now().Add(patience)
	}
	return c, c.SetDeadline(end)
}
