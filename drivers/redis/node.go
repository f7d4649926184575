package redis

import (
	"context"
	"net"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// node is a server, and the connections to it.
type node struct {
	addr   string
	client *goredis.Client // calls
	blocks *goredis.Client // what waits: writes for replicas

	mu     sync.Mutex
	owned  map[*goredis.Client]struct{} // those of lanes and sockets
	closed bool
}

func newNode(c config, addr string) *node {
	blocks := c.options(addr)
	blocks.PoolSize = 1 << 14
	// There may be many, which mostly wait: the client's own are 32 KiB.
	blocks.ReadBufferSize, blocks.WriteBufferSize = 16<<10, 8<<10
	blocks.ReadTimeout += max(c.block, c.safe.wait())
	return &node{
		addr: addr, client: goredis.NewClient(c.options(addr)), blocks: goredis.NewClient(blocks),
		owned: map[*goredis.Client]struct{}{},
	}
}

// own adds a connection of its own.
func (n *node) own(c *goredis.Client) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		_ = c.Close()
	}
	n.owned[c] = struct{}{}
}

func (n *node) disown(c *goredis.Client) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.owned, c)
}

func (n *node) isClosed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.closed
}

// close ends the connections, also those in use.
func (n *node) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for c := range n.owned {
		_ = c.Close() // it closes but sockets
	}
	_ = n.client.Close()
	_ = n.blocks.Close()
}

func (c config) options(addr string) *goredis.Options {
	o := &goredis.Options{
		Addr:                  addr,
		Username:              c.user,
		Password:              c.password.Text(),
		DB:                    c.db,
		TLSConfig:             c.tls,
		Protocol:              2,
		MaxRetries:            -1, // its retries would repeat what was done: ours are deduplicated
		DialerRetries:         1,
		DialTimeout:           c.timeout,
		ReadTimeout:           c.timeout,
		WriteTimeout:          c.timeout,
		ContextTimeoutEnabled: true,
		DisableIdentity:       true,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
		PoolSize:         c.pool,
		PipelinePoolSize: -1, // else pipelines have connections of their own, of 256 KiB each
	}
	dial := goredis.NewDialer(o)
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if c.via != nil {
			addr = c.via(addr)
		}
		conn, err := dial(ctx, network, addr)
		if err != nil {
			// The pool would write every failure to stderr and then try only
			// once a second; this way the caller has the error and the pace.
			return failedConn{err: err}, nil
		}
		return conn, nil
	}
	return o
}

// failedConn is a connection that was never made.
type failedConn struct {
	net.Conn
	err error
}

func (c failedConn) Read([]byte) (int, error)       { return 0, c.err }
func (c failedConn) Write([]byte) (int, error)      { return 0, c.err }
func (failedConn) Close() error                     { return nil }
func (failedConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (failedConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (failedConn) SetDeadline(time.Time) error      { return nil }
func (failedConn) SetReadDeadline(time.Time) error  { return nil }
func (failedConn) SetWriteDeadline(time.Time) error { return nil }
