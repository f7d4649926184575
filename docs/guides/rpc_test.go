package guides

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// serve answers until ctx ends.
func serve(ctx context.Context, conn *polymq.Conn) error {
	sub, err := conn.Subscriber(ctx, "shout", nil)
	if err != nil {
		return err
	}
	return sub.Run(ctx, polymq.Responder(func(ctx context.Context, d *polymq.Delivery) (*polymq.Message, error) {
		if len(d.Body) == 0 {
			return nil, errors.New("nothing to shout") // the caller gets a *RemoteError
		}
		return &polymq.Message{Body: []byte(strings.ToUpper(string(d.Body)))}, nil
	}))
}

// ask waits for the answer for 5 seconds. r is made once and shared by all
// callers: conn.Requester(ctx, "", nil).
func ask(ctx context.Context, r *polymq.Requester, text string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	reply, err := r.Call(ctx, &polymq.Message{Key: "shout", TTL: 5 * time.Second, Body: []byte(text)})
	if err != nil {
		return "", err
	}
	return string(reply.Body), nil
}

func TestRPC(t *testing.T) {
	everywhere(t, func(t *testing.T, ctx context.Context, conn *polymq.Conn) {
		if err := conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "shout"}}}); err != nil {
			t.Fatal(err)
		}
		serving, stop := context.WithCancel(ctx)
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- serve(serving, conn) }()
		r, err := conn.Requester(ctx, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ask(ctx, r, "ahoy"); got != "AHOY" || err != nil {
			t.Errorf("got %q, error %v", got, err)
		}
		_, err = ask(ctx, r, "")
		if remote, ok := errors.AsType[*polymq.RemoteError](err); !ok || remote.Text != "nothing to shout" {
			t.Errorf("the error came as %v", err)
		}
		stop()
		if err := errors.Join(<-ended, r.Close(ctx)); err != nil {
			t.Error(err)
		}
	})
}
