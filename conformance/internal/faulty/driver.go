package faulty

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// Fault is one broken promise: hooks that take the place of a driver's
// methods. A nil hook is the method as it is.
type Fault struct {
	Name    string
	Promise int
	Row     string // that must catch it; "": any of the promise

	open     func(d *Driver, u *driver.URL) (*driver.URL, error)
	features func(f *driver.Features)

	declare        func(ctx context.Context, c driver.Conn, t routing.Topology) error
	verify         func(ctx context.Context, c driver.Conn, t routing.Topology) error
	bind           func(ctx context.Context, c driver.Conn, bs []routing.Binding) error
	unbind         func(ctx context.Context, c driver.Conn, bs []routing.Binding) error
	deleteQueue    func(ctx context.Context, c driver.Conn, name string, o driver.DeleteOptions) error
	deleteExchange func(ctx context.Context, c driver.Conn, name string, o driver.DeleteOptions) error
	topology       func(t routing.Topology) routing.Topology
	inspect        func(i driver.QueueInfo) driver.QueueInfo
	purge          func(ctx context.Context, c driver.Conn, queue string) (int, error)
	closeConn      func(ctx context.Context, c driver.Conn) error
	restores       func(queue string) bool

	publisher func(cfg *driver.PublisherConfig)
	publish   func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool)

	subscriber func(cfg *driver.SubscriberConfig)
	receive    func(ctx context.Context, s *subscriber, buf []*driver.Delivery) (int, error)
	settle     func(ctx context.Context, s *subscriber, d *driver.Delivery, o driver.Outcome, delay time.Duration) error
	drain      func(ctx context.Context, s *subscriber) error
	closeSub   func(ctx context.Context, s *subscriber) error
}

// Driver is a driver with a fault, or with none.
type Driver struct {
	next  driver.Driver
	fault Fault

	mu      sync.Mutex
	links   map[string]*link
	newer   map[string]bool
	severed bool
	ids     map[string]bool
	subs    []*subscriber
	opened  int
}

// New wraps a driver.
func New(next driver.Driver, f Fault) *Driver {
	return &Driver{next: next, fault: f, links: map[string]*link{"": newLink()}, newer: map[string]bool{}, ids: map[string]bool{}}
}

// Pausable returns another URL of the namespace at url, and functions that
// hold up and let go the connections made through it.
func (d *Driver) Pausable(url string) (through string, pause, resume func()) {
	l, through := d.link(url)
	return through, l.pause, l.resume
}

// Mortal returns another URL of the namespace at url, and a function that kills
// the clients connected through it.
func (d *Driver) Mortal(url string) (through string, kill func()) {
	l, through := d.link(url)
	return through, l.kill
}

// Sever tells the driver that its connections were cut.
func (d *Driver) Sever() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.severed = true
}

// Newer marks the namespace at url as written by a newer version.
func (d *Driver) Newer(url string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, rest, _ := strings.Cut(url, "://")
	name, _, _ := strings.Cut(rest, "?")
	d.newer[name] = true
}

func (d *Driver) isNewer(u *driver.URL) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.newer[u.Hosts[0]]
}

// seen notes a name and reports whether it was noted before.
func (d *Driver) seen(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.ids[id]
	d.ids[id] = true
	return was
}

// number counts connections.
func (d *Driver) number() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opened++
	return d.opened
}

// subscribers is every subscriber of the driver.
func (d *Driver) subscribers() []*subscriber {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.subs)
}

func (d *Driver) link(url string) (*link, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := strconv.Itoa(len(d.links))
	d.links[name] = newLink()
	return d.links[name], url + "?via=" + name
}

// killed reports whether clients of the driver were killed.
func (d *Driver) killed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.links {
		if l.dead() {
			return true
		}
	}
	return false
}

func (d *Driver) wasSevered() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.severed
}

// Open connects through the link that the URL names.
func (d *Driver) Open(ctx context.Context, u *driver.URL, cfg driver.Config) (driver.Conn, error) {
	via := u.Text("via", "")
	if d.fault.open != nil {
		var err error
		if u, err = d.fault.open(d, u); err != nil {
			return nil, err
		}
	} else if d.isNewer(u) {
		return nil, errors.New("the namespace was written by a newer version: upgrade this program")
	}
	dc, err := d.next.Open(ctx, u, cfg)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	l := d.links[via]
	d.mu.Unlock()
	l.mu.Lock()
	l.conns = append(l.conns, dc)
	l.mu.Unlock()
	return &conn{Conn: dc, d: d, f: &d.fault, l: l}, nil
}

type conn struct {
	driver.Conn
	d *Driver
	f *Fault
	l *link
}

func (c *conn) Features() driver.Features {
	f := c.Conn.Features()
	if c.f.features != nil {
		c.f.features(&f)
	}
	return f
}

// Restores implements driver.Restored.
func (c *conn) Restores(queue string) bool {
	if c.f.restores != nil {
		return c.f.restores(queue)
	}
	r, ok := c.Conn.(driver.Restored)
	return ok && r.Restores(queue)
}

func (c *conn) Declare(ctx context.Context, t routing.Topology) error {
	if err := c.l.wait(ctx); err != nil {
		return err
	}
	if c.f.declare != nil {
		return c.f.declare(ctx, c.Conn, t)
	}
	return c.Conn.Declare(ctx, t)
}

func (c *conn) Verify(ctx context.Context, t routing.Topology) error {
	if err := c.l.wait(ctx); err != nil {
		return err
	}
	if c.f.verify != nil {
		return c.f.verify(ctx, c.Conn, t)
	}
	return c.Conn.Verify(ctx, t)
}

func (c *conn) Bind(ctx context.Context, bs []routing.Binding) error {
	if err := c.l.wait(ctx); err != nil {
		return err
	}
	if c.f.bind != nil {
		return c.f.bind(ctx, c.Conn, bs)
	}
	return c.Conn.Bind(ctx, bs)
}

func (c *conn) Unbind(ctx context.Context, bs []routing.Binding) error {
	if err := c.l.wait(ctx); err != nil {
		return err
	}
	if c.f.unbind != nil {
		return c.f.unbind(ctx, c.Conn, bs)
	}
	return c.Conn.Unbind(ctx, bs)
}

func (c *conn) DeleteQueue(ctx context.Context, name string, o driver.DeleteOptions) error {
	if err := c.l.wait(ctx); err != nil {
		return err
	}
	if c.f.deleteQueue != nil {
		return c.f.deleteQueue(ctx, c.Conn, name, o)
	}
	return c.Conn.DeleteQueue(ctx, name, o)
}

func (c *conn) DeleteExchange(ctx context.Context, name string, o driver.DeleteOptions) error {
	if err := c.l.wait(ctx); err != nil {
		return err
	}
	if c.f.deleteExchange != nil {
		return c.f.deleteExchange(ctx, c.Conn, name, o)
	}
	return c.Conn.DeleteExchange(ctx, name, o)
}

func (c *conn) Topology(ctx context.Context) (routing.Topology, error) {
	if err := c.l.wait(ctx); err != nil {
		return routing.Topology{}, err
	}
	t, err := c.Conn.Topology(ctx)
	if c.f.topology != nil {
		t = c.f.topology(t)
	}
	return t, err
}

func (c *conn) Inspect(ctx context.Context, queue string) (driver.QueueInfo, error) {
	if err := c.l.wait(ctx); err != nil {
		return driver.QueueInfo{}, err
	}
	i, err := c.Conn.Inspect(ctx, queue)
	if c.f.inspect != nil {
		i = c.f.inspect(i)
	}
	return i, err
}

func (c *conn) Purge(ctx context.Context, queue string) (int, error) {
	if err := c.l.wait(ctx); err != nil {
		return 0, err
	}
	if c.f.purge != nil {
		return c.f.purge(ctx, c.Conn, queue)
	}
	return c.Conn.Purge(ctx, queue)
}

func (c *conn) Health(ctx context.Context) error {
	if err := c.l.wait(ctx); err != nil {
		return err
	}
	return c.Conn.Health(ctx)
}

func (c *conn) Publisher(ctx context.Context, cfg driver.PublisherConfig) (driver.Publisher, error) {
	if c.f.publisher != nil {
		c.f.publisher(&cfg)
	}
	p, err := c.Conn.Publisher(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &publisher{Publisher: p, c: c, cfg: cfg}, nil
}

func (c *conn) Subscriber(ctx context.Context, cfg driver.SubscriberConfig) (driver.Subscriber, error) {
	if err := c.l.wait(ctx); err != nil {
		return nil, err
	}
	if c.f.subscriber != nil {
		c.f.subscriber(&cfg)
	}
	s, err := c.Conn.Subscriber(ctx, cfg)
	if err != nil {
		return nil, err
	}
	sub := &subscriber{Subscriber: s, c: c, queue: cfg.Queue, held: map[*driver.Delivery]bool{}}
	c.d.mu.Lock()
	c.d.subs = append(c.d.subs, sub)
	c.d.mu.Unlock()
	return sub, nil
}

// Close of a connection whose link is held up ends with ctx, and leaves nothing
// all the same.
func (c *conn) Close(ctx context.Context) error {
	if err := c.l.wait(ctx); err != nil {
		_ = c.Conn.Close(context.Background())
		return err
	}
	if c.f.closeConn != nil {
		return c.f.closeConn(ctx, c.Conn)
	}
	return c.Conn.Close(ctx)
}
