package polymq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/drivers/mem"
	"github.com/polymq/polymq/routing"
)

// 8. The same declaration again is nothing, another one a conflict that names
// the field.
func Example_idempotent() {
	ctx := context.Background()
	conn, _ := station(ctx, "idempotent")
	defer conn.Close(ctx)
	fmt.Println(conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "jobs"}}}))
	err := conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "jobs", MaxLength: 10}}})
	fmt.Println(errors.Is(err, polymq.ErrConflict), strings.Contains(err.Error(), "MaxLength"))
	// Output:
	// <nil>
	// true true
}

// 9. When Bind has returned, everybody's next publish is routed by it.
func Example_inForce() {
	ctx := context.Background()
	conn, _ := station(ctx, "force")
	defer conn.Close(ctx)
	other, err := polymq.Open(ctx, "mem://force", nil)
	do(err)
	defer other.Close(ctx)
	pub, err := other.Publisher(ctx, "amq.direct", nil)
	do(err)
	b := routing.Binding{Exchange: "amq.direct", Queue: "jobs", Key: "k"}
	for range 3 {
		do(conn.Bind(ctx, b))
		do(pub.Publish(ctx, &polymq.Message{Key: "k"}))
		do(conn.Unbind(ctx, b))
		fmt.Println(errors.Is(pub.Publish(ctx, &polymq.Message{Key: "k"}), polymq.ErrUnroutable))
	}
	// Output:
	// true
	// true
	// true
}

// 10. What is not Transient survives a restart of the broker.
func Example_durable() {
	ctx := context.Background()
	conn, pub := station(ctx, "durable")
	defer conn.Close(ctx)
	do(pub.Publish(ctx,
		&polymq.Message{Key: "jobs", Body: []byte("kept")},
		&polymq.Message{Key: "jobs", Body: []byte("lost"), Transient: true}))
	mem.Restart("durable")
	info, err := conn.Inspect(ctx, "jobs")
	fmt.Println(info.Ready, err)
	// Output: 1 <nil>
}

// 11. Any name will do, also one that the broker could not hold.
func Example_anyName() {
	ctx := context.Background()
	conn, pub := station(ctx, "names")
	defer conn.Close(ctx)
	name := "Grüße / to * > from {A} " + strings.Repeat("x", 200)
	do(conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: name}}}))
	fmt.Println(pub.Publish(ctx, &polymq.Message{Key: name}))
	err := conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "amq.mine"}}})
	fmt.Println(errors.Is(err, polymq.ErrInvalid))
	// Output:
	// <nil>
	// true
}

// 12. Routing is RabbitMQ's: here an exchange whose alternate takes the rest.
func Example_routing() {
	ctx := context.Background()
	conn, _ := station(ctx, "routing")
	defer conn.Close(ctx)
	do(conn.Declare(ctx, routing.Topology{
		Exchanges: []routing.Exchange{{Name: "news", Kind: routing.Topic, Alternate: "rest"}, {Name: "rest", Kind: routing.Fanout}},
		Queues:    []routing.Queue{{Name: "sport"}, {Name: "other"}},
		Bindings:  []routing.Binding{{Exchange: "news", Queue: "sport", Key: "sport.#"}, {Exchange: "rest", Queue: "other"}},
	}))
	pub, err := conn.Publisher(ctx, "news", nil)
	do(err)
	do(pub.Publish(ctx, &polymq.Message{Key: "sport.chess"}, &polymq.Message{Key: "weather"}))
	for _, q := range []string{"sport", "other"} {
		fmt.Println(q, take(ctx, subscribe(ctx, conn, q)).Key)
	}
	// Output:
	// sport sport.chess
	// other weather
}
