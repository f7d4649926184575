package protobuf_test

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/codec/protobuf"
)

// The type of a value is a pointer to a generated struct; here one of those that
// come with Protocol Buffers.
func Example() {
	handler := polymq.Typed(func(_ context.Context, d *polymq.Delivery, v *durationpb.Duration) error {
		fmt.Println(d.ContentType, d.Type, v.AsDuration())
		return nil
	}, protobuf.Codec, protobuf.JSON)

	for _, codec := range []polymq.Codec{protobuf.Codec, protobuf.JSON} {
		m, err := polymq.Encode(durationpb.New(90*time.Second), codec)
		if err != nil {
			fmt.Println(err)
			return
		}
		if err := handler(context.Background(), &polymq.Delivery{Message: m}); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// application/protobuf google.protobuf.Duration 1m30s
	// application/json google.protobuf.Duration 1m30s
}
