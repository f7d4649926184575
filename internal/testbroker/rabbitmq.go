package testbroker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

type rabbitMQ struct{}

// The ports of a RabbitMQ.
const (
	amqpPort = iota
	managementPort
	distributionPort
	epmdPort
	amqpsPort
)

func (rabbitMQ) scheme() string { return "amqp" }
func (rabbitMQ) title() string  { return "RabbitMQ" }

func (rabbitMQ) launch(s *server) error {
	script, _, err := findRabbitMQ()
	if err != nil {
		return err
	}
	conf := fmt.Sprintf(`listeners.tcp.1 = %s
management.tcp.ip = 127.0.0.1
management.tcp.port = %d
default_user = polymq
default_pass = %s
loopback_users = none
log.file = false
log.console = true
log.console.level = warning
management.sample_retention_policies.global.minute = 1
management.sample_retention_policies.basic.minute = 1
management.sample_retention_policies.detailed.minute = 1
`, s.address(amqpPort), s.ports[managementPort], s.password)
	if s.peers != nil {
		conf += "cluster_formation.peer_discovery_backend = classic_config\ncluster_partition_handling = pause_minority\n"
		for i, node := range s.peers.nodes {
			conf += fmt.Sprintf("cluster_formation.classic_config.nodes.%d = %s\n", i+1, nodeName(node))
		}
	}
	plugins := "rabbitmq_management,rabbitmq_consistent_hash_exchange"
	home := script.home(s.dir)
	if s.tls != nil {
		if err := s.tls.copy(s.dir); err != nil {
			return err
		}
		plugins += ",rabbitmq_auth_mechanism_ssl"
		conf += fmt.Sprintf(`listeners.ssl.1 = %s
ssl_options.cacertfile = %[2]s/ca.crt
ssl_options.certfile = %[2]s/server.crt
ssl_options.keyfile = %[2]s/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = EXTERNAL
ssl_cert_login_from = common_name
`, s.address(amqpsPort), home)
	}
	for name, text := range map[string]string{
		"rabbitmq.conf":   conf,
		"enabled_plugins": "[" + plugins + "].\n",
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	// The cookie may be read by its owner only, and is there already after a
	// restart.
	cookie := filepath.Join(s.dir, ".erlang.cookie")
	if _, err := os.Stat(cookie); err != nil {
		if err := os.WriteFile(cookie, []byte(s.password), 0o400); err != nil {
			return err
		}
	}
	mapper := s
	if s.peers != nil {
		mapper = s.peers.servers[0]
	} else if err := (portMapper{}).launch(s); err != nil {
		return err
	}
	const loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
	// How often it looks for a way for dead letters that have none: three
	// minutes by default, which no test should wait.
	const deadLetters = " -rabbit dead_letter_worker_publisher_confirm_timeout 1000"
	// With the retention policies above: how old the management API's figures
	// may be, which is five seconds and more by default.
	const figures = " -rabbit quorum_tick_interval 500 -rabbit collect_statistics_interval 500"
	cmd := script.command()
	cmd.Env = append(os.Environ(),
		"HOME="+home,
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_EPMD_PORT="+strconv.Itoa(mapper.ports[epmdPort]),
		"ERL_CRASH_DUMP="+filepath.Join(home, "crash"),
		"RABBITMQ_USE_LONGNAME=true",
		"RABBITMQ_NODENAME="+nodeName(s),
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		"RABBITMQ_NODE_PORT="+strconv.Itoa(s.ports[amqpPort]),
		"RABBITMQ_DIST_PORT="+strconv.Itoa(s.ports[distributionPort]),
		"RABBITMQ_MNESIA_BASE="+filepath.Join(home, "data"),
		"RABBITMQ_LOG_BASE="+home,
		"RABBITMQ_CONFIG_FILE="+filepath.Join(home, "rabbitmq"),
		"RABBITMQ_CONF_ENV_FILE="+filepath.Join(home, "none"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(home, "enabled_plugins"),
		"RABBITMQ_PID_FILE="+filepath.Join(home, "pid"),
		// Only so does the script exec Erlang instead of forking it, so that
		// the process started here is the broker.
		"RABBITMQ_ALLOW_INPUT=1",
		// Schedulers that spin while idle would take the tests' cores.
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-noinput +sbwt none +sbwtdcpu none +sbwtdio none "+loopback+deadLetters+figures,
	)
	return s.run(cmd)
}

// nodeName needs no name service: an address may be a long name.
func nodeName(s *server) string { return fmt.Sprintf("polymq%d@127.0.0.1", s.ports[amqpPort]) }

func (rabbitMQ) ready(ctx context.Context, s *server) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", s.address(amqpPort))
	if err != nil {
		return err
	}
	c.Close()
	return manage(ctx, rabbitMQ{}.url(s), http.MethodGet, "/api/vhosts/%2F", "")
}

func (rabbitMQ) url(s *server) string {
	return fmt.Sprintf("amqp://polymq:%s@%s/%%2F?management=http://%s", s.password, s.address(amqpPort), s.address(managementPort))
}

func (rabbitMQ) secureURL(s *server) string {
	return fmt.Sprintf("amqps://polymq:%s@localhost:%d/%%2F?management=http://%s", s.password, s.ports[amqpsPort], s.address(managementPort))
}

func (rabbitMQ) fresh(ctx context.Context, base, name string) (string, error) {
	u, err := url.Parse(base)
	if err != nil {
		return "", err
	}
	// The nodes of a cluster on a busy machine may take longer to begin a vhost than
	// the broker waits for them: asked again, it waits again.
	err = errors.New("not asked")
	for try := 0; try < 3 && err != nil; try++ {
		err = manage(ctx, base, http.MethodPut, "/api/vhosts/"+name, "{}")
	}
	if err != nil {
		return "", err
	}
	user := "guest"
	if u.User != nil {
		user = u.User.Username()
	}
	if err := manage(ctx, base, http.MethodPut, "/api/permissions/"+name+"/"+url.PathEscape(user), `{"configure":".*","write":".*","read":".*"}`); err != nil {
		return "", err
	}
	u.Path, u.RawPath = "/"+name, ""
	q := u.Query()
	q.Set("management", managementURL(u))
	u.RawQuery = q.Encode()
	return u.String(), nil
}

func (rabbitMQ) remove(ctx context.Context, base, name string) error {
	return manage(ctx, base, http.MethodDelete, "/api/vhosts/"+name, "")
}

func managementURL(u *url.URL) string {
	if m := u.Query().Get("management"); m != "" {
		return m
	}
	return "http://" + net.JoinHostPort(u.Hostname(), "15672")
}

// manage changes something by the management API of the broker at base; ask
// reads.
func manage(ctx context.Context, base, method, path, body string) error {
	return callManagement(ctx, base, method, path, body, nil)
}

func ask(ctx context.Context, base, path string, into any) error {
	return callManagement(ctx, base, http.MethodGet, path, "", into)
}

func callManagement(ctx context.Context, base, method, path, body string, into any) error {
	u, err := url.Parse(base)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, managementURL(u)+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	user, password := "guest", "guest"
	if u.User != nil {
		user = u.User.Username()
		password, _ = u.User.Password()
	}
	req.SetBasicAuth(user, password)
	req.Header.Set("Content-Type", "application/json")
	res, err := management.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 300))
		return fmt.Errorf("management API: %s %s: %s: %s", method, path, res.Status, bytes.TrimSpace(text))
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(into)
}

// Idle connections would look like leaks to tests that count goroutines.
var management = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func awaitPort(address string, d time.Duration) error {
	for end := time.Now().Add(d); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			return err
		}
	}
}
