package testbroker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// masterName is what the sentinels call the Redis that they watch.
const masterName = "polymq"

// A sentinel watches the Redis servers of its cluster.
type sentinel struct{ redis }

func (sentinel) title() string { return "Redis Sentinel" }

func (sentinel) url(s *server) string { return fmt.Sprintf("redis://:%s@%s", s.password, s.address(0)) }

// launch waits until the replicas follow their master: a sentinel that is
// started earlier finds them ten seconds later only.
func (sentinel) launch(s *server) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, replica := range s.peers.nodes[1:] {
		err := retry(ctx, func(ctx context.Context) error {
			return contains(ctx, replica, "master_link_status:up", "INFO", "replication")
		})
		if err != nil {
			return err
		}
	}
	program, err := findRedis()
	if err != nil {
		return err
	}
	home := program.home(s.dir)
	conf := fmt.Sprintf(`bind 127.0.0.1
port %[1]d
dir %[2]s
requirepass %[3]s
sentinel sentinel-pass %[3]s
sentinel monitor %[4]s 127.0.0.1 %[5]d 2
sentinel auth-pass %[4]s %[3]s
sentinel down-after-milliseconds %[4]s %[6]d
sentinel failover-timeout %[4]s 5000
`, s.ports[0], home, s.password, masterName, s.peers.nodes[0].front(), s.peers.nodes[0].setup.silence(1000))
	// The sentinel writes into its file what it learns, which is to be kept when
	// it is started again.
	file := filepath.Join(s.dir, "sentinel.conf")
	if _, err := os.Stat(file); err != nil {
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			return err
		}
	}
	return s.run(program.command(filepath.Join(home, "sentinel.conf"), "--sentinel", "--port", strconv.Itoa(s.ports[0])))
}
