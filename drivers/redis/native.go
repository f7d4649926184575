package redis

import (
	"sync"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// native is the client that programs are given: one of their own where the
// driver's go to a single server each.
type native struct {
	mu     sync.Mutex
	client goredis.UniversalClient
	closed bool
}

func (s *store) Native() any {
	n := &s.native
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.client == nil {
		n.client = s.cfg.client()
		if n.closed {
			_ = n.client.Close()
		}
	}
	return n.client
}

// client follows the servers by itself.
func (c config) client() goredis.UniversalClient {
	return goredis.NewUniversalClient(&goredis.UniversalOptions{
		Addrs: c.addrs, IsClusterMode: c.find != nil && c.master == "", MasterName: c.master, DB: c.db,
		Username: c.user, Password: c.password.Text(), SentinelUsername: c.sentinelUser, SentinelPassword: c.sentinelPassword.Text(),
		TLSConfig: c.tls, Protocol: 2, DisableIdentity: true, ContextTimeoutEnabled: true,
		DialTimeout: c.timeout, ReadTimeout: c.timeout, WriteTimeout: c.timeout, PoolSize: c.pool,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

func (n *native) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	if n.client != nil {
		_ = n.client.Close()
	}
}
