// Rpc asks questions and gets answers: two servers share a queue, and several
// callers share one requester.
//
//	go run ./examples/rpc                                    # in memory
//	go run ./examples/rpc -url amqp://guest:guest@localhost  # RabbitMQ
//	go run ./examples/rpc -url nats://localhost              # NATS JetStream
//	go run ./examples/rpc -url redis://localhost             # Redis Streams
//
// It prints the same on all of them, and leaves nothing behind.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/polymq/polymq"
	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/mem"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
	"github.com/polymq/polymq/routing"
)

func main() {
	url := flag.String("url", polymq.URLFromEnv("mem://"), "the broker; default $POLYMQ_URL, else memory")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := run(ctx, *url, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "rpc:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, url string, out io.Writer) (err error) {
	conn, err := polymq.Open(ctx, url, nil)
	if err != nil {
		return err
	}
	queue := "squares." + strings.ToLower(rand.Text()[:8]) // new in each run, so that two do not meet
	defer func() {
		// Cleaning up must also work when ctx has ended.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		err = errors.Join(err, conn.DeleteQueue(ctx, queue, nil), conn.Close(ctx))
	}()
	if err := conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: queue}}}); err != nil {
		return err
	}

	var subs [2]*polymq.Subscriber // before anybody stops them: one may answer all questions
	for i := range subs {
		if subs[i], err = conn.Subscriber(ctx, queue, nil); err != nil {
			return err
		}
	}
	serving, stop := context.WithCancel(ctx)
	failed := make(chan error, len(subs))
	for _, sub := range subs {
		go func() { failed <- sub.Run(serving, polymq.Responder(square)) }()
	}
	defer func() {
		stop()
		for range subs {
			err = errors.Join(err, <-failed)
		}
	}()

	requester, err := conn.Requester(ctx, "", nil)
	if err != nil {
		return err
	}
	questions := []string{"3", "12", "a dozen"}
	answers := make([]string, len(questions))
	var callers sync.WaitGroup
	for i, q := range questions {
		callers.Go(func() { answers[i] = ask(ctx, requester, queue, q) })
	}
	callers.Wait()
	for i, q := range questions {
		fmt.Fprintf(out, "%s squared: %s\n", q, answers[i])
	}
	_, err = fmt.Fprintf(out, "ok: %d questions, %d answers\n", len(questions), len(answers))
	return errors.Join(err, requester.Close(ctx))
}

// square answers a question.
func square(_ context.Context, d *polymq.Delivery) (*polymq.Message, error) {
	n, err := strconv.Atoi(string(d.Body))
	if err != nil {
		return nil, errors.New("not a number") // the caller gets it
	}
	return &polymq.Message{Body: []byte(strconv.Itoa(n * n))}, nil
}

// ask waits for at most 20 seconds, which is also how long the question waits.
func ask(ctx context.Context, r *polymq.Requester, queue, question string) string {
	const patience = 20 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	reply, err := r.Call(ctx, &polymq.Message{Key: queue, TTL: patience, Body: []byte(question)})
	if remote, ok := errors.AsType[*polymq.RemoteError](err); ok {
		return remote.Text
	}
	if err != nil {
		return err.Error()
	}
	return string(reply.Body)
}
