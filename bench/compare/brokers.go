package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/polymq/polymq/internal/testbroker"
)

// brokers are the running brokers, by URL scheme.
type brokers map[string]string

func startBrokers() (brokers, func(), error) {
	env, stop, err := testbroker.Run()
	if err != nil {
		return nil, nil, err
	}
	b := brokers{}
	for _, e := range env {
		name, url, _ := strings.Cut(e, "=")
		b[strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(name, "POLYMQ_RUN_"), "_URL"))] = url
	}
	return b, stop, nil
}

// backend is a broker with a setting, and who is measured on it. Raw goes first:
// ratios are to it.
type backend struct {
	name   string
	kind   string // of queue
	url    func(b brokers) string
	begin  func(ctx context.Context, b brokers) error // nil: nothing to be set
	rivals []rival
}

var backends = []backend{
	{"rabbitmq-classic", "classic", amqpURL, nil, amqpRivals},
	{"rabbitmq-quorum", "quorum", amqpURL, nil, amqpRivals},
	{"jetstream", "", func(b brokers) string { return b["nats"] }, nil, []rival{
		{"raw", false, openRawNATS},
		{"fast", false, openFastNATS},
		{"polymq", false, openPolymq},
		{"watermill", true, openWatermillNATS(false)},
		{"watermill-tuned", true, openWatermillNATS(true)},
		{"gocdk", true, openCDKNATS},
	}},
	{"redis-everysec", "", redisURL, appendOnly("yes"), redisRivals("")},
	// polymq must be told that messages may be lost with the server.
	{"redis-off", "", redisURL, appendOnly("no"), redisRivals("?durability=memory")},
}

// amqpURL is without the options that only polymq knows: it needs none here.
func amqpURL(b brokers) string {
	url, _, _ := strings.Cut(b["amqp"], "?")
	return url
}

func redisURL(b brokers) string { return b["redis"] }

var amqpRivals = []rival{
	{"raw", false, openRawAMQP},
	{"fast", false, openFastAMQP},
	{"polymq", false, openPolymq},
	{"watermill", true, openWatermillAMQP(false)},
	{"watermill-tuned", true, openWatermillAMQP(true)},
	{"gocdk", true, openCDKAMQP},
}

func redisRivals(options string) []rival {
	return []rival{
		{"raw", false, openRawRedis},
		{"fast", false, openFastRedis},
		{"polymq", false, func(ctx context.Context, s setup) (contender, error) {
			s.url += options
			return openPolymq(ctx, s)
		}},
		{"watermill", true, openWatermillRedis},
		{"loose", true, openLooseRedis},
	}
}

// appendOnly sets whether the server keeps an append-only file, which it syncs
// every second, and waits until it does.
func appendOnly(value string) func(ctx context.Context, b brokers) error {
	return func(ctx context.Context, b brokers) error {
		o, err := goredis.ParseURL(b["redis"])
		if err != nil {
			return err
		}
		c := goredis.NewClient(o)
		defer c.Close()
		if err := c.FlushAll(ctx).Err(); err != nil {
			return err
		}
		for _, set := range [][2]string{{"appendfsync", "everysec"}, {"appendonly", value}} {
			if err := c.ConfigSet(ctx, set[0], set[1]).Err(); err != nil {
				return fmt.Errorf("redis: set %s: %w", set[0], err)
			}
		}
		for {
			info, err := c.Info(ctx, "persistence").Result()
			if err != nil {
				return err
			}
			if strings.Contains(info, "aof_rewrite_in_progress:0") && strings.Contains(info, "aof_rewrite_scheduled:0") {
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
}

// open opens the backend's contenders, and closes them all where one fails.
func (b backend) open(ctx context.Context, urls brokers, rivals []rival, queues int) (cs []contender, closeAll func(), err error) {
	closeAll = func() {
		for _, c := range cs {
			c.close()
		}
	}
	for _, r := range rivals {
		url := ""
		if b.url != nil {
			url = b.url(urls)
		}
		c, err := r.open(ctx, setup{url: url, kind: b.kind, queues: queues})
		if err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("%s on %s: %w", r.name, b.name, err)
		}
		cs = append(cs, c)
	}
	return cs, closeAll, nil
}
