package mem

import (
	"context"
	"errors"
	"strings"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// Driver opens mem URLs. Importing the package registers it with polymq; it is
// exported for programs that wrap it.
var Driver driver.Driver = opener{}

func init() { polymq.Register("mem", Driver) }

type opener struct{}

func (opener) Open(ctx context.Context, u *driver.URL, cfg driver.Config) (driver.Conn, error) {
	vhost := u.Text("vhost", "default")
	if err := u.Rest(); err != nil {
		return nil, err
	}
	switch {
	case len(u.Hosts) != 1 || strings.Contains(u.Hosts[0], ":"):
		return nil, errors.New("a mem URL has one name and no port: mem://name")
	case u.HasUser:
		return nil, errors.New("a mem URL has no user: mem://name")
	case u.Path != "":
		return nil, errors.New("a mem URL has no path: mem://name?vhost=namespace")
	}
	return emulate.New(ctx, connect(u.Hosts[0], vhost, cfg), emulate.Config{Logger: cfg.Logger})
}
