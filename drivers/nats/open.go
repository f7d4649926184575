package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// Driver opens connections to NATS servers with JetStream.
type Driver struct{}

func init() {
	polymq.Register("nats", Driver{})
	polymq.Register("tls+nats", Driver{})
}

// Open connects to one of the URL's hosts; see the package documentation for
// the URL. The connection has three goroutines of its own beside those of
// nats.go and of emulate's, and each subscriber three.
func (Driver) Open(ctx context.Context, u *driver.URL, cfg driver.Config) (driver.Conn, error) {
	s, err := openStore(ctx, u, cfg)
	if err != nil {
		return nil, err
	}
	c, err := emulate.New(ctx, s, emulate.Config{Logger: cfg.Logger})
	if err != nil {
		s.Close(ctx)
		return nil, err
	}
	return c, nil
}

// options are what the URL says.
type options struct {
	vhost    string
	lease    time.Duration
	replicas int
	tls      *tls.Config // nil: in clear, unless the server wants it otherwise
	creds    string      // a file with a user's JWT and nkey seed
	nkey     string      // a file with an nkey seed
}

const (
	minVersion = "2.12.2" // see doc.go

	attemptTimeout = 5 * time.Second  // of one request to the server
	electionTime   = 15 * time.Second // for which Open waits for a cluster's JetStream
	pingInterval   = 5 * time.Second  // two without an answer end a connection
	maxBackoff     = 2 * time.Second  // between two rounds over the hosts
)

func parseOptions(u *driver.URL) (options, error) {
	o := options{
		vhost: u.Text("vhost", "default"),
		lease: u.Duration("lease", 30*time.Second, time.Second, 10*time.Minute),
	}
	o.replicas, _ = strconv.Atoi(u.OneOf("replicas", "1", "3", "5"))
	o.creds, o.nkey = u.Text("creds", ""), u.Text("nkey", "")
	if u.Scheme == "tls+nats" {
		o.tls = u.TLS()
	}
	err := u.Rest()
	switch {
	case err != nil:
	case u.Path != "":
		err = errors.New("a nats URL has no path: write ?vhost=name for a namespace")
	case u.HasUser && o.creds != "" || u.HasUser && o.nkey != "" || o.creds != "" && o.nkey != "":
		err = errors.New("a user in the URL, creds and nkey are three ways to say who connects: give one")
	}
	return o, err
}

func openStore(ctx context.Context, u *driver.URL, cfg driver.Config) (*store, error) {
	opt, err := parseOptions(u)
	if err != nil {
		return nil, err
	}
	s := newStore(cfg, opt)
	d := &dialer{ctx: ctx}
	o := natsgo.GetDefaultOptions()
	for _, addr := range u.Addrs(4222) {
		o.Servers = append(o.Servers, "nats://"+addr)
	}
	if opt.tls != nil {
		o.Secure = true
		o.TLSConfig = opt.tls
	}
	switch {
	case opt.creds != "":
		if err := natsgo.UserCredentials(opt.creds)(&o); err != nil {
			return nil, fmt.Errorf("URL option creds: %w", err)
		}
	case opt.nkey != "":
		auth, err := natsgo.NkeyOptionFromSeed(opt.nkey)
		if err == nil {
			err = auth(&o)
		}
		if err != nil {
			return nil, fmt.Errorf("URL option nkey: %w", err)
		}
	case !u.HasUser:
	case u.Password == "":
		o.Token = u.User
	default:
		o.User, o.Password = u.User, u.Password
	}
	o.Name = "polymq"
	o.CustomDialer = d
	o.SkipHostLookup = true // the dialer looks names up, bounded by ctx
	o.Timeout = attemptTimeout
	o.MaxReconnect = -1
	o.ReconnectBufSize = -1 // what waits in it would be sent again without our knowing
	o.IgnoreAuthErrorAbort = true
	o.CustomReconnectDelayCB = func(rounds int) time.Duration {
		d := min(maxBackoff, 25*time.Millisecond<<min(rounds, 10))
		return d/2 + rand.N(d/2+1)
	}
	o.PingInterval, o.MaxPingsOut = pingInterval, 2
	o.SubChanLen = 2 * pageMessages // the default is half a megabyte for each page that is read
	o.SkipSubjectValidation = true  // all subjects are made here
	o.DisconnectedErrCB = func(_ *natsgo.Conn, err error) { s.down(err) }
	o.ReconnectedCB = func(*natsgo.Conn) { s.up() }
	o.ClosedCB = func(*natsgo.Conn) { close(s.ended) }
	o.AsyncErrorCB = func(_ *natsgo.Conn, sub *natsgo.Subscription, err error) { s.asyncError(sub, err) }

	nc, err := o.Connect()
	if err != nil {
		return nil, d.explain(ctx, u, err)
	}
	d.opened()
	s.nc = nc
	if err := s.begin(ctx); err != nil {
		nc.Close()
		<-s.ended
		return nil, err
	}
	return s, nil
}

// begin refuses a server that cannot hold the promises and starts what the
// store runs in the background.
func (s *store) begin(ctx context.Context) error {
	version := s.nc.ConnectedServerVersion()
	if !newEnough(version) {
		return fmt.Errorf("nats-server %s is too old: polymq needs %s or newer, for atomic batches and conditions on another subject; update the server", version, minVersion)
	}
	js, err := jetstream.New(s.nc)
	if err != nil {
		return err
	}
	s.js = api{js, s}
	info, err := s.account(ctx)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("the NATS server has no JetStream for this account: start nats-server with -js, or enable it for the account: %w", err)
	case err != nil:
		return wrap(fmt.Errorf("asking for JetStream: %w", err))
	case info.API.Level < 2:
		return fmt.Errorf("the JetStream servers speak API level %d: polymq needs 2, which nats-server %s has; update the servers", info.API.Level, minVersion)
	}
	s.version = version
	s.maxPayload = int(s.nc.MaxPayload())
	s.connected()
	return s.publisher.start(s)
}

// account asks for JetStream. A cluster may be electing who answers for it, and the node
// that is asked may go meanwhile: nats.go then finds another.
func (s *store) account(opening context.Context) (*jetstream.AccountInfo, error) {
	limit, cluster := attemptTimeout, s.nc.ConnectedClusterName() != ""
	if cluster {
		limit = electionTime
	}
	ctx, cancel := context.WithTimeout(opening, limit)
	defer cancel()
	ctx, done := s.asks.begin(ctx)
	defer done()
	for {
		info, err := hedged(ctx, s, s.js.AccountInfo)
		again := hasCode(err, codeNotAvailable) || cluster && err != nil && passing(err)
		if again && wait(ctx, askAgain) == nil {
			continue
		}
		err = denial(ctx, err)
		if over := opening.Err(); err != nil && over != nil && !errors.Is(err, over) {
			err = fmt.Errorf("%w: %w", over, err)
		}
		return info, err
	}
}

// newEnough reports whether a version like 2.12.2 or 2.13.0-RC.1 will do.
func newEnough(version string) bool {
	have, ok := parseVersion(version)
	want, _ := parseVersion(minVersion)
	return ok && slices.Compare(have[:], want[:]) >= 0
}

func parseVersion(s string) (v [3]int, ok bool) {
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "v"), "-")
	parts := strings.Split(s, ".")
	if len(parts) != len(v) {
		return v, false
	}
	for i, p := range parts {
		var err error
		if v[i], err = strconv.Atoi(p); err != nil {
			return v, false
		}
	}
	return v, true
}

// dialer bounds the first connecting by Open's ctx, which nats.go does not
// know, and keeps the reason that nats.go drops when a host refuses.
type dialer struct {
	mu   sync.Mutex
	ctx  context.Context // nil once opened
	stop func() bool
	err  error
}

func (d *dialer) Dial(network, address string) (net.Conn, error) {
	d.mu.Lock()
	open := d.ctx
	d.mu.Unlock()
	ctx := open
	if ctx == nil {
		ctx = context.Background()
	}
	nd := net.Dialer{Timeout: attemptTimeout}
	c, err := nd.DialContext(ctx, network, address)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.err = err
		return nil, err
	}
	if d.ctx != nil {
		d.stop = context.AfterFunc(d.ctx, func() { c.Close() })
	}
	return c, nil
}

func (d *dialer) opened() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stop != nil {
		d.stop()
	}
	d.ctx, d.stop = nil, nil
}

func (d *dialer) explain(ctx context.Context, u *driver.URL, err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case errors.Is(err, natsgo.ErrSecureConnWanted):
		return fmt.Errorf("connecting to %s: there is no TLS at this port: name the one that has it, or write the scheme nats: %w", u, err)
	case ctx.Err() != nil:
		return fmt.Errorf("connecting to %s: no answer as NATS gives it: is this its port? %w", u, ctx.Err())
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("connecting to %s: no answer as NATS gives it: is this its port? %w", u, err)
	case errors.Is(err, natsgo.ErrNoServers) && d.err != nil:
		return fmt.Errorf("connecting to %s: %w", u, d.err)
	}
	if err = wrap(err); errors.Is(err, driver.ErrPermission) {
		err = fmt.Errorf("check the user name and password of the URL: %w", err)
	}
	return fmt.Errorf("connecting to %s: %w", u, err)
}
