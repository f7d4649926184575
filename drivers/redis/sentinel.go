package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// found is what a sentinel answered.
type found struct {
	addr  string
	epoch int // of what it goes by: it grows with each failover
	err   error
}

// askSentinels asks the sentinels for the server that is the master now, all at
// once: after a failover one knows first, and the others hear of it within two
// seconds. Those who have not answered soon after one who is not behind what was
// found before are not waited for.
func (v *servers) askSentinels(ctx context.Context) ([]shard, error) {
	answers := make(chan found, len(v.hosts))
	for _, host := range v.hosts {
		from := v.from(host)
		v.s.wg.Go(func() { answers <- askSentinel(ctx, v.s.cfg, from) })
	}
	best := found{epoch: -1}
	var enough <-chan time.Time
	for range v.hosts {
		select {
		case a := <-answers:
			switch {
			case a.err != nil:
				best.err = a.err
			case a.epoch > best.epoch:
				best.addr, best.epoch = a.addr, a.epoch
			}
			if a.err == nil && a.epoch >= v.epoch && enough == nil {
				enough = time.After(askPause)
			}
			continue
		case <-enough:
		}
		break
	}
	if best.epoch < 0 {
		return nil, best.err
	}
	v.epoch = best.epoch
	return []shard{{0, slots - 1, best.addr}}, nil
}

func askSentinel(ctx context.Context, c config, from *goredis.Client) found {
	pipe := from.Pipeline()
	where := goredis.NewStringSliceCmd(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", c.master)
	about := goredis.NewMapStringStringCmd(ctx, "SENTINEL", "MASTER", c.master)
	_, _ = pipe.Process(ctx, where), pipe.Process(ctx, about)
	_, failed := pipe.Exec(ctx)
	addr, err := where.Result()
	if err == nil && addr == nil {
		err = failed // as exec has it
	}
	switch {
	case errors.Is(err, goredis.Nil):
		return found{err: errors.New("the sentinel knows no server by the name that the URL option master says")}
	case strings.HasPrefix(reply(err), "ERR unknown command"):
		// The server's answer has the name in it, which is nobody's business.
		return found{err: fmt.Errorf("%s is no sentinel, as the URL says", from.Options().Addr)}
	case err != nil:
		return found{err: asked(err)}
	case len(addr) != 2:
		return found{err: errMalformed}
	}
	// Without it, one sentinel is as good as another.
	epoch, _ := strconv.Atoi(about.Val()["config-epoch"])
	return found{addr: net.JoinHostPort(addr[0], addr[1]), epoch: epoch}
}

// asked tells a sentinel's refusal from a server's.
func asked(err error) error {
	if mapped(err) == err {
		return err
	}
	return fmt.Errorf("a sentinel, which the URL options sentinel-user and sentinel-password are for, refused: %w", err)
}
