package cloudevents_test

import (
	"context"
	"fmt"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/codec/cloudevents"
)

// A handler takes events in either mode.
func Example() {
	handler := polymq.Typed(func(_ context.Context, d *polymq.Delivery, e event.Event) error {
		fmt.Println(e.Type(), e.Subject(), string(e.Data()))
		return nil
	}, cloudevents.Binary)

	e := event.New()
	e.SetID("1")
	e.SetSource("/shop")
	e.SetType("order.paid")
	e.SetSubject("order/7")
	if err := e.SetData(event.ApplicationJSON, map[string]int{"total": 17}); err != nil {
		fmt.Println(err)
	}
	for _, codec := range []polymq.Codec{cloudevents.Binary, cloudevents.Structured} {
		m, err := polymq.Encode(e, codec)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(m.ContentType, len(m.Header), "headers")
		if err := handler(context.Background(), &polymq.Delivery{Message: m}); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// application/json 5 headers
	// order.paid order/7 {"total":17}
	// application/cloudevents+json 0 headers
	// order.paid order/7 {"total":17}
}
