package testbroker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// redisCluster is three masters that share the slots, and a replica of each.
type redisCluster struct{ redis }

// clusterPort is the one on which the members of a Redis Cluster talk.
const clusterPort = 1

func (redisCluster) title() string { return "Redis Cluster" }

func (redisCluster) servers() ([]kind, int, int) {
	return []kind{member{}, member{}, member{}, member{}, member{}, member{}}, 0, 6
}

// A member is a Redis in a Redis Cluster.
type member struct{ redis }

func (member) launch(s *server) error {
	return (redis{}).run(s, "--masterauth", s.password, "--repl-diskless-sync-delay", "0",
		"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(s.ports[clusterPort]), "--cluster-node-timeout", strconv.Itoa(s.setup.silence(2000)),
		"--cluster-announce-port", strconv.Itoa(s.front()))
}

func (redisCluster) join(ctx context.Context, p *peers) error {
	const slots = 16384
	masters := len(p.nodes) / 2
	for i, s := range p.nodes {
		var err error
		if first := p.nodes[0]; s != first {
			err = tell(ctx, s, "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(first.ports[0]), strconv.Itoa(first.ports[clusterPort]))
		}
		if err == nil && i < masters {
			err = tell(ctx, s, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slots/masters), strconv.Itoa((i+1)*slots/masters-1))
		}
		if err != nil {
			return err
		}
	}
	for i, s := range p.nodes[masters:] {
		id, err := do(ctx, p.nodes[i], "CLUSTER", "MYID")
		if err != nil {
			return err
		}
		// The replica may not have heard of its master yet.
		err = retry(ctx, func(ctx context.Context) error { return tell(ctx, s, "CLUSTER", "REPLICATE", fmt.Sprint(id)) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (redisCluster) joined(ctx context.Context, p *peers) error {
	replicas := 0
	for _, s := range p.nodes {
		if err := contains(ctx, s, "cluster_state:ok", "CLUSTER", "INFO"); err != nil {
			return err
		}
		if contains(ctx, s, "master_link_status:up", "INFO", "replication") == nil {
			replicas++
		}
	}
	if replicas != len(p.nodes)/2 {
		return fmt.Errorf("%d replicas follow", replicas)
	}
	return nil
}

func (redisCluster) clusterURL(p *peers) string {
	return fmt.Sprintf("redis+cluster://:%s@%s", p.nodes[0].password, addresses(p.nodes))
}

func (redisCluster) led(context.Context, *peers) ([]string, error) { return nil, nil }

// leads is how many slots each node serves that is up.
func (redisCluster) leads(ctx context.Context, p *peers, _ []string) ([]int, error) {
	var err error
	for _, s := range p.nodes {
		var reply any
		if reply, err = do(ctx, s, "CLUSTER", "SLOTS"); err != nil {
			continue
		}
		leads := make([]int, len(p.nodes))
		ranges, _ := reply.([]any)
		for _, r := range ranges {
			fields, _ := r.([]any) // from, to, the master's host, port and so on, its replicas
			if len(fields) < 3 {
				continue
			}
			from, _ := fields[0].(int64)
			to, _ := fields[1].(int64)
			master, _ := fields[2].([]any)
			if len(master) < 2 {
				continue
			}
			if i := slices.IndexFunc(p.nodes, func(s *server) bool { return int64(s.front()) == master[1] && s.running() }); i >= 0 {
				leads[i] += int(to - from + 1)
			}
		}
		return leads, nil
	}
	return nil, err
}

// redisSentinel is a master and two replicas, watched by three sentinels.
type redisSentinel struct{ redis }

func (redisSentinel) title() string { return "Redis with sentinels" }

func (redisSentinel) servers() ([]kind, int, int) {
	return []kind{replicated{}, replicated{}, replicated{}, sentinel{}, sentinel{}, sentinel{}}, 0, 3
}

// A replicated Redis begins as a replica of the first, unless it is the first.
// Started again, it follows whom the sentinels call the master: they would take
// some ten seconds to tell it.
type replicated struct{ redis }

func (replicated) launch(s *server) error {
	args := []string{"--masterauth", s.password, "--repl-diskless-sync-delay", "0", "--replica-announce-port", strconv.Itoa(s.front())}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	master, err := masterPort(ctx, s.peers)
	if err != nil { // no sentinel runs yet
		master = strconv.Itoa(s.peers.nodes[0].front())
	}
	if master != strconv.Itoa(s.front()) {
		args = append(args, "--replicaof", "127.0.0.1 "+master)
	}
	return (redis{}).run(s, args...)
}

// masterPort is that of whom the sentinels call the master.
func masterPort(ctx context.Context, p *peers) (string, error) {
	reply, err := do(ctx, p.servers[len(p.nodes)], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName)
	if err != nil {
		return "", err
	}
	address, _ := reply.([]any)
	if len(address) != 2 {
		return "", errors.New("the sentinel knows no master")
	}
	port, _ := address[1].(string)
	return port, nil
}

func (redisSentinel) join(context.Context, *peers) error { return nil }

func (redisSentinel) joined(ctx context.Context, p *peers) error {
	for _, s := range p.servers[len(p.nodes):] {
		if err := contains(ctx, s, "OK 3", "SENTINEL", "CKQUORUM", masterName); err != nil {
			return err
		}
		reply, err := do(ctx, s, "SENTINEL", "REPLICAS", masterName)
		if err != nil {
			return err
		}
		if replicas, _ := reply.([]any); len(replicas) != len(p.nodes)-1 {
			return fmt.Errorf("a sentinel knows %d replicas", len(replicas))
		}
	}
	following := 0
	for _, s := range p.nodes {
		if contains(ctx, s, "master_link_status:up", "INFO", "replication") == nil {
			following++
		}
	}
	if following != len(p.nodes)-1 {
		return fmt.Errorf("%d replicas follow", following)
	}
	return nil
}

func (redisSentinel) clusterURL(p *peers) string {
	return fmt.Sprintf("redis+sentinel://:%s@%s/0?master=%s&sentinel-password=%[1]s", p.nodes[0].password, addresses(p.servers[len(p.nodes):]), masterName)
}

func (redisSentinel) led(context.Context, *peers) ([]string, error) { return nil, nil }

// leads is 1 for whom the sentinels call the master.
func (redisSentinel) leads(ctx context.Context, p *peers, _ []string) ([]int, error) {
	master, err := masterPort(ctx, p)
	if err != nil {
		return nil, err
	}
	leads := make([]int, len(p.nodes))
	for i, s := range p.nodes {
		if strconv.Itoa(s.front()) == master && contains(ctx, s, "role:master", "INFO", "replication") == nil {
			leads[i] = 1
		}
	}
	return leads, nil
}

// do sends one command to a Redis.
func do(ctx context.Context, s *server, args ...string) (any, error) {
	c, err := dialRedis(ctx, s.kind.url(s))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.do(args...)
}

func tell(ctx context.Context, s *server, args ...string) error {
	_, err := do(ctx, s, args...)
	return err
}

// contains is an error unless the answer, a text, contains part.
func contains(ctx context.Context, s *server, part string, args ...string) error {
	reply, err := do(ctx, s, args...)
	if err != nil {
		return err
	}
	if text, _ := reply.(string); !strings.Contains(text, part) {
		return errors.New(strings.Join(args, " ") + " does not say " + part)
	}
	return nil
}
