package polymq_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/drivers/mem"
)

// 21. Publishers and subscribers go on after the connection was lost.
func Example_comesBack() {
	ctx := context.Background()
	conn, err := polymq.Open(ctx, "mem://back", &polymq.Options{
		OnState: func(state polymq.State, _ error) { fmt.Println(state) },
	})
	do(err)
	mem.Sever("back")
	fmt.Println("health:", conn.Health(ctx))
	do(conn.Close(ctx))
	// Output:
	// connected
	// disconnected
	// connected
	// health: <nil>
	// closed
}

// 22. Close can be called again, and everything ends with it.
func Example_ends() {
	ctx := context.Background()
	conn, pub := station(ctx, "ends")
	fmt.Println(conn.Close(ctx), conn.Close(ctx))
	fmt.Println(errors.Is(pub.Publish(ctx, &polymq.Message{Key: "jobs"}), polymq.ErrClosed))
	// Output:
	// <nil> <nil>
	// true
}

// 23. What cannot work is refused when the connection is opened.
func Example_refusedEarly() {
	ctx := context.Background()
	_, err := polymq.Open(ctx, "mem://x?colour=blue", nil)
	fmt.Println(err)
	_, err = polymq.Open(ctx, "amqp://localhost", nil)
	fmt.Println(err)
	// Output:
	// mem: open "mem://x": unknown URL option "colour": mem takes vhost
	// amqp: open "amqp://localhost": unsupported operation: no driver is registered for amqp: add the import _ "github.com/polymq/polymq/drivers/amqp"
}

// 24. What is stored carries a version, and is read by the one beside it.
func Example_sideBySide() {
	ctx := context.Background()
	old, pub := station(ctx, "beside")
	defer old.Close(ctx)
	young, err := polymq.Open(ctx, "mem://beside", nil)
	do(err)
	defer young.Close(ctx)
	do(pub.Publish(ctx, &polymq.Message{Key: "jobs", Body: []byte("sweep")}))
	fmt.Printf("%s\n", take(ctx, subscribe(ctx, young, "jobs")).Body)
	// Output: sweep
}
