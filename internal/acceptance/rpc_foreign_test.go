package acceptance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
)

// rawChannel is a channel of RabbitMQ's own client.
func rawChannel(t *testing.T, at string) *amqp091.Channel {
	t.Helper()
	bare, _, _ := strings.Cut(at, "?")
	conn, err := amqp091.Dial(bare)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// rawReplies consumes replies, from a queue of the client's own or from RabbitMQ's
// direct reply-to, and returns what ReplyTo is to say.
func rawReplies(t *testing.T, ch *amqp091.Channel, direct bool) (<-chan amqp091.Delivery, string) {
	t.Helper()
	name := "amq.rabbitmq.reply-to"
	if !direct {
		q, err := ch.QueueDeclare("", false, true, true, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		name = q.Name
	}
	replies, err := ch.Consume(name, "replies", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return replies, name
}

// Programs that call as RabbitMQ's tutorials do are answered by a Responder, with
// the error in a header, and are not taken for gone.
func TestForeignCaller(t *testing.T) {
	for name, direct := range map[string]bool{"a queue of its own": false, "direct reply-to": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := testbroker.URL(t, "amqp")
			server, _ := callable(t, at)
			respond, replied := polymq.TypedResponder(add), make(chan error, 1)
			serve(t, server, func(ctx context.Context, d *polymq.Delivery) error {
				if d.ContentType != "" {
					return respond(ctx, d)
				}
				replied <- d.Reply(ctx, &polymq.Message{Body: d.Body})
				return nil
			})
			ctx := within(t, time.Minute)
			ch := rawChannel(t, at)
			replies, replyTo := rawReplies(t, ch, direct)
			call := func(id, contentType, body string) {
				t.Helper()
				err := ch.PublishWithContext(ctx, "", "calls", true, false, amqp091.Publishing{CorrelationId: id, ReplyTo: replyTo, ContentType: contentType, Body: []byte(body)})
				if err != nil {
					t.Fatal(err)
				}
			}
			hear := func() (d amqp091.Delivery) {
				t.Helper()
				select {
				case d = <-replies:
				case <-ctx.Done():
					t.Fatal("no reply came")
				}
				return d
			}
			call("one", "application/json", `{"A":1,"B":2}`)
			if d := hear(); d.CorrelationId != "one" || string(d.Body) != "3" || d.ContentType != "application/json" || d.MessageId == "" {
				t.Errorf("the reply is %q to %q, %+v", d.Body, d.CorrelationId, d)
			}
			call("two", "application/json", `{"A":-1}`)
			if d := hear(); d.CorrelationId != "two" || d.Headers[polymq.HeaderError] != "-1 is negative" {
				t.Errorf("the reply is %v to %q", d.Headers, d.CorrelationId)
			}
			call("three", "", "echo")
			if d := hear(); string(d.Body) != "echo" {
				t.Errorf("the reply is %q to %q", d.Body, d.CorrelationId)
			}
			if err := <-replied; err != nil {
				t.Errorf("Reply to who got it: %v", err)
			}
			if direct {
				return // RabbitMQ tells of no caller that is gone
			}
			if _, err := ch.QueueDelete(replyTo, false, false, false); err != nil {
				t.Fatal(err)
			}
			call("four", "", "echo")
			if err := <-replied; !errors.Is(err, polymq.ErrUnroutable) {
				t.Errorf("Reply to who is gone: %v, want ErrUnroutable", err)
			}
		})
	}
}

// A server that answers as RabbitMQ's tutorials do serves a Requester.
func TestForeignServer(t *testing.T) {
	at := testbroker.URL(t, "amqp")
	_, client := callable(t, at)
	ch := rawChannel(t, at)
	requests, err := ch.Consume("calls", "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for d := range requests {
			var s sum
			reply := amqp091.Publishing{CorrelationId: d.CorrelationId}
			err := json.Unmarshal(d.Body, &s)
			if reply.Body = fmt.Append(nil, s.A+s.B); s.A < 0 { // the word on errors is this library's, for who knows it
				reply.Headers = amqp091.Table{polymq.HeaderError: "negative"}
			}
			if err := errors.Join(err, d.Ack(false), ch.PublishWithContext(context.Background(), "", d.ReplyTo, false, false, reply)); err != nil {
				t.Error(err)
			}
		}
	})
	adder := polymq.NewTypedRequester[sum, int](requester(t, client), nil)
	ctx := within(t, time.Minute)
	var calling sync.WaitGroup
	for i := range 50 {
		calling.Go(func() {
			if got, err := adder.Call(ctx, polymq.Message{Key: "calls"}, sum{i, 1}); err != nil || got != i+1 {
				t.Errorf("%d + 1: %d, %v", i, got, err)
			}
		})
	}
	calling.Wait()
	_, err = adder.Call(ctx, polymq.Message{Key: "calls"}, sum{-1, 0})
	if remote, ok := errors.AsType[*polymq.RemoteError](err); !ok || remote.Text != "negative" {
		t.Errorf("got %v", err)
	}
	if err := ch.Close(); err != nil {
		t.Fatal(err)
	}
	serving.Wait()
}
