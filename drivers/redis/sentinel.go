package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// askSentinel asks a sentinel for the server that is the master now.
func askSentinel(ctx context.Context, c config, from *goredis.Client) ([]shard, []string, error) {
	v, err := from.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", c.master).StringSlice()
	switch {
	case errors.Is(err, goredis.Nil):
		return nil, nil, errors.New("the sentinel knows no server by the name that the URL option master says")
	case strings.HasPrefix(reply(err), "ERR unknown command"):
		// The server's answer has the name in it, which is nobody's business.
		return nil, nil, fmt.Errorf("%s is no sentinel, as the URL says", from.Options().Addr)
	case err != nil:
		return nil, nil, asked(err)
	case len(v) != 2:
		return nil, nil, errMalformed
	}
	return []shard{{0, slots - 1, net.JoinHostPort(v[0], v[1])}}, nil, nil
}

// asked tells a sentinel's refusal from a server's.
func asked(err error) error {
	if mapped(err) == err {
		return err
	}
	return fmt.Errorf("a sentinel, which the URL options sentinel-user and sentinel-password are for, refused: %w", err)
}
