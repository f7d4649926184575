package amqp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// management is RabbitMQ's HTTP API, which alone can list what stands.
type management struct {
	base     *url.URL
	user     string
	password string
	vhost    string
	client   *http.Client
}

func newManagement(s settings) (*management, error) {
	if s.management == "" {
		return nil, nil
	}
	u, err := url.Parse(s.management)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("URL option management must be the address of RabbitMQ's management API, like http://localhost:15672 (percent-encoded where it holds & or #)")
	}
	m := &management{base: u, user: s.user, password: s.password, vhost: s.vhost, client: &http.Client{}}
	if u.User != nil {
		m.user = u.User.Username()
		m.password, _ = u.User.Password()
		u.User = nil
	}
	return m, nil
}

func needManagement(what string) error {
	return fmt.Errorf("%w: %s needs RabbitMQ's management API: add ?management=http://host:15672 to the URL", errors.ErrUnsupported, what)
}

func (c *Conn) verifyFields(ctx context.Context, t routing.Topology) error {
	return needManagement("Verify")
}

// Topology implements driver.Conn.
func (c *Conn) Topology(ctx context.Context) (routing.Topology, error) {
	return routing.Topology{}, needManagement("Topology")
}

// Inspect implements driver.Conn.
func (c *Conn) Inspect(ctx context.Context, queue string) (driver.QueueInfo, error) {
	return driver.QueueInfo{}, needManagement("Inspect")
}
