package config_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/config"
	_ "github.com/polymq/polymq/drivers/mem"
)

// A program that finds its broker and its topology in files, and says what it
// would change before it does.
func Example() {
	dir, err := os.MkdirTemp("", "")
	check(err)
	defer os.RemoveAll(dir)
	app, top := filepath.Join(dir, "app.ini"), filepath.Join(dir, "topology.yaml")
	check(os.WriteFile(app, []byte("[polymq]\nurl = mem://config\n"), 0o600))
	check(os.WriteFile(top, []byte(`
exchanges:
  - name: orders
    kind: topic
queues:
  - name: billing
    ttl: 30s
bindings:
  - exchange: orders
    queue: billing
    key: order.*.paid
`), 0o600))

	ctx := context.Background()
	os.Unsetenv("POLYMQ_URL")
	url, err := config.URL(app)
	check(err)
	topology, err := config.ReadTopology(top)
	check(err)
	conn, err := polymq.Open(ctx, url, nil)
	check(err)
	defer conn.Close(context.WithoutCancel(ctx))
	plan, err := conn.Plan(ctx, topology)
	check(err)
	fmt.Println(plan)
	check(conn.Declare(ctx, topology))
	plan, err = conn.Plan(ctx, topology)
	check(err)
	fmt.Println(plan)
	// Output:
	// create    exchange "orders", kind "topic"
	// create    queue "billing", ttl 30s
	// create    binding "orders" -> "billing", key "order.*.paid"
	// plan: 3 to create, 0 in conflict, 0 extra
	// plan: 0 to create, 0 in conflict, 0 extra
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
