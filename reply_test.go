package polymq_test

import (
	"context"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
)

// A ReplyTo that is no name must not make the request come again for ever.
func TestResponderWithoutAWayBack(t *testing.T) {
	f := newFake()
	f.queue <- &driver.Delivery{Message: driver.Message{ID: "1", ReplyTo: "no\x01name"}, Queue: "q", Attempt: 1}
	d, err := subscriber(t, f, nil).Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = polymq.Responder(func(context.Context, *polymq.Delivery) (*polymq.Message, error) {
		return &polymq.Message{Body: []byte("reply")}, nil
	})(t.Context(), d)
	wantIs(t, err, polymq.ErrInvalid)
	if !polymq.IsPermanent(err) {
		t.Errorf("%v: not permanent", err)
	}
}
