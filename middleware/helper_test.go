package middleware_test

import (
	"context"

	"github.com/polymq/polymq"
)

func delivery() *polymq.Delivery {
	return &polymq.Delivery{
		Message:  &polymq.Message{ID: "id-1", Key: "order.paid", Body: []byte("secret body"), Header: polymq.Header{"h": "secret header"}},
		Exchange: "orders",
		Queue:    "billing",
		Attempt:  2,
	}
}

// script is a handler that returns errs one after another, then the last.
func script(calls *int, errs ...error) polymq.Handler {
	return func(context.Context, *polymq.Delivery) error {
		err := errs[min(*calls, len(errs)-1)]
		*calls++
		return err
	}
}
