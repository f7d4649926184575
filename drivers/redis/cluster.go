package redis

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// slots is how many the keys of a Redis Cluster are spread over.
const slots = 16384

// askCluster asks the nodes of a Redis Cluster, one after the other, until one
// answers.
func (v *servers) askCluster(ctx context.Context) ([]shard, error) {
	if v.troubled && time.Since(v.turned) > askEvery {
		v.turn() // who was asked until now may be cut off from the others himself
	}
	var last error
	for range v.hosts {
		shards, known, err := askNode(ctx, v.from(v.hosts[0]))
		if err != nil {
			last = err
			v.turn()
			continue
		}
		v.hosts = slices.DeleteFunc(v.hosts, func(addr string) bool {
			return !slices.Contains(known, addr) && !slices.Contains(v.s.cfg.addrs, addr)
		})
		for _, addr := range known {
			if !slices.Contains(v.hosts, addr) {
				v.hosts = append(v.hosts, addr)
			}
		}
		return shards, nil
	}
	return nil, last
}

// askNode asks one node. It returns the addresses of all that it knows, too.
func askNode(ctx context.Context, from *goredis.Client) ([]shard, []string, error) {
	//lint:ignore SA1019 CLUSTER SHARDS leaves it open which of two masters of a shard is the present one
	found, err := from.ClusterSlots(ctx).Result()
	if err != nil {
		if strings.HasPrefix(reply(err), "ERR This instance has cluster support disabled") {
			err = fmt.Errorf("the URL's scheme for a server that is no Redis Cluster has no +cluster: %w", err)
		}
		return nil, nil, err
	}
	self, _, _ := net.SplitHostPort(from.Options().Addr)
	var shards []shard
	var hosts []string
	for _, r := range found {
		for i, n := range r.Nodes {
			host, port, _ := net.SplitHostPort(n.Addr)
			if host == "" || host == "?" {
				host = self // it knows itself by no other name
			}
			addr := net.JoinHostPort(host, port)
			hosts = append(hosts, addr)
			if i == 0 {
				shards = append(shards, shard{r.Start, r.End, addr})
			}
		}
	}
	slices.SortFunc(shards, func(a, b shard) int { return cmp.Compare(a.from, b.from) })
	if len(shards) == 0 {
		return nil, nil, errNowhere
	}
	return shards, hosts, nil
}

// slotOf is the slot of a key: that of what its first braces hold, which all keys
// of ours have.
func slotOf(key string) int {
	if _, after, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(after, "}"); ok && tag != "" {
			key = tag
		}
	}
	var crc uint16
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc) % slots
}
