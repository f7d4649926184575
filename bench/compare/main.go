// Compare measures polymq beside the raw clients, on the same brokers in one
// interleaved run: the order of the contenders is rotated from round to round,
// and ratios are taken within a round.
//
//	go run ./compare [-run op/backend] [-rounds 9] [-time 300ms]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq/internal/testbroker"
)

const (
	window   = 1024
	callers  = 64
	prefetch = 256
)

var ids atomic.Uint64

// nextID is an ID as an application would make one that wants none better.
func nextID() string { return runID + strconv.FormatUint(ids.Add(1), 36) }

var runID = strconv.FormatInt(time.Now().UnixNano(), 36) + "-"

type backend struct {
	name string
	ops  []operation
	open []opener
}

type opener struct {
	name string
	open func(ctx context.Context) (contender, error)
}

func main() {
	filter := flag.String("run", "", "regular expression on op/backend/size")
	rounds := flag.Int("rounds", 9, "rounds")
	span := flag.Duration("time", 300*time.Millisecond, "length of a round of one contender")
	flag.Parse()
	if err := run(*filter, *rounds, *span); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func run(filter string, rounds int, span time.Duration) error {
	match, err := regexp.Compile(filter)
	if err != nil {
		return err
	}
	env, stop, err := testbroker.Run()
	if err != nil {
		return err
	}
	defer stop()
	urls := map[string]string{}
	for _, e := range env {
		name, url, _ := strings.Cut(e, "=")
		urls[strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(name, "POLYMQ_RUN_"), "_URL"))] = url
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	for _, b := range backends(urls) {
		for _, op := range b.ops {
			for _, size := range []int{256, 4096} {
				if !match.MatchString(fmt.Sprintf("%s/%s/%d", op, b.name, size)) {
					continue
				}
				if err := cell(ctx, b, op, size, rounds, span); err != nil {
					return fmt.Errorf("%s on %s, %d bytes: %w", op, b.name, size, err)
				}
			}
		}
	}
	return nil
}

func backends(urls map[string]string) []backend {
	ops := []operation{publishOne, publishPipelined, publishCallers, consumeAck}
	amqpURL, _, _ := strings.Cut(urls["amqp"], "?")
	var bs []backend
	for _, kind := range []string{"classic", "quorum"} {
		bs = append(bs, backend{"rabbitmq-" + kind, ops, []opener{
			{"raw", func(ctx context.Context) (contender, error) { return newRawAMQP(ctx, amqpURL, kind) }},
			{"polymq", func(ctx context.Context) (contender, error) { return newPolymq(ctx, amqpURL, kind) }},
			{"watermill", func(ctx context.Context) (contender, error) { return newWatermillAMQP(ctx, amqpURL, kind) }},
		}})
	}
	return append(bs,
		backend{"jetstream", ops, []opener{
			{"raw", func(ctx context.Context) (contender, error) { return newRawNATS(ctx, urls["nats"]) }},
			{"polymq", func(ctx context.Context) (contender, error) { return newPolymq(ctx, urls["nats"], "") }},
			{"watermill", func(ctx context.Context) (contender, error) { return newWatermillNATS(ctx, urls["nats"]) }},
		}},
		backend{"redis", ops, []opener{
			{"raw", func(ctx context.Context) (contender, error) { return newRawRedis(ctx, urls["redis"], false) }},
			{"raw-same", func(ctx context.Context) (contender, error) { return newRawRedis(ctx, urls["redis"], true) }},
			{"polymq", func(ctx context.Context) (contender, error) { return newPolymq(ctx, urls["redis"], "") }},
			{"watermill", func(ctx context.Context) (contender, error) { return newWatermillRedis(ctx, urls["redis"]) }},
		}},
		backend{"memory", []operation{memoryLoop}, []opener{
			{"watermill", newWatermillMemory},
			{"polymq", func(ctx context.Context) (contender, error) { return newPolymq(ctx, "mem://bench", "") }},
		}})
}

func cell(ctx context.Context, b backend, op operation, size, rounds int, span time.Duration) error {
	body := make([]byte, size)
	var cs []contender
	defer func() {
		for _, c := range cs {
			c.close()
		}
	}()
	var ns []int // so many messages take each about the span
	for _, o := range b.open {
		c, err := o.open(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
		cs = append(cs, c)
		k, err := calibrate(ctx, c, op, body, span)
		if err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
		ns = append(ns, k)
	}
	rates, allocs, cpus, ratios := make([][]float64, len(cs)), make([][]float64, len(cs)), make([][]float64, len(cs)), make([][]float64, len(cs))
	for r := range rounds {
		this := make([]sample, len(cs))
		for i := range cs {
			k := (i + r) % len(cs)
			s, err := round(ctx, cs[k], op, ns[k], body)
			if err != nil {
				return fmt.Errorf("%s: %w", b.open[k].name, err)
			}
			this[k] = s
		}
		for i, s := range this {
			rates[i] = append(rates[i], s.rate)
			allocs[i] = append(allocs[i], s.allocs)
			cpus[i] = append(cpus[i], s.cpu)
			ratios[i] = append(ratios[i], s.rate/this[0].rate)
		}
	}
	for i, o := range b.open {
		rate, low, high := median(rates[i])
		ratio, rlow, rhigh := median(ratios[i])
		a, _, _ := median(allocs[i])
		cpu, _, _ := median(cpus[i])
		fmt.Printf("%-14s %-17s %4d B  %-9s %9.0f/s (%.0f-%.0f)  ratio %.2f (%.2f-%.2f)  %5.1f allocs  %5.2f us cpu\n",
			op, b.name, size, o.name, rate, low, high, ratio, rlow, rhigh, a, cpu)
	}
	return nil
}
