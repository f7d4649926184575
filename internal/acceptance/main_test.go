package acceptance_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/mem"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// roles are what this test binary does when it is started as a second process.
var roles = map[string]func(ctx context.Context, conn *polymq.Conn, in *bufio.Scanner) error{
	"binder": binder,
	"kindly": kindly,
	"holder": holder,
	"mover":  mover,
}

const (
	roleVariable = "POLYMQ_ACCEPTANCE_ROLE"
	urlVariable  = "POLYMQ_ACCEPTANCE_URL"
)

func TestMain(m *testing.M) {
	role := roles[os.Getenv(roleVariable)]
	if role == nil {
		testbroker.Main(m)
	}
	ctx := context.Background()
	conn, err := polymq.Open(ctx, os.Getenv(urlVariable), nil)
	if err == nil {
		err = role(ctx, conn, bufio.NewScanner(os.Stdin))
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// A process is the second process of a test: it gets and gives lines.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// start starts this binary in a role; it is killed when t ends.
func start(t *testing.T, role, url string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+role, urlVariable+"="+url)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd, in, bufio.NewScanner(out)}
	t.Cleanup(p.kill)
	return p
}

// say sends a line; hear waits for one.
func (p *process) say(t *testing.T, line string) {
	t.Helper()
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		t.Fatalf("the second process: %v", err)
	}
}

func (p *process) hear(t *testing.T) string {
	t.Helper()
	if !p.out.Scan() {
		t.Fatalf("the second process ended: %v", p.out.Err())
	}
	if line := p.out.Text(); !strings.HasPrefix(line, "error:") {
		return line
	}
	t.Fatalf("the second process: %s", p.out.Text())
	return ""
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	_ = p.cmd.Wait()
}

// open opens a connection that is closed when t ends.
func open(t *testing.T, url string) *polymq.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := polymq.Open(ctx, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := conn.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return conn
}

func declare(t *testing.T, conn *polymq.Conn, topology routing.Topology) {
	t.Helper()
	if err := conn.Declare(t.Context(), topology); err != nil {
		t.Fatal(err)
	}
}

func publisher(t *testing.T, conn *polymq.Conn, exchange string) *polymq.Publisher {
	t.Helper()
	pub, err := conn.Publisher(t.Context(), exchange, nil)
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

func subscriber(t *testing.T, conn *polymq.Conn, queue string, prefetch int) *polymq.Subscriber {
	t.Helper()
	sub, err := conn.Subscriber(t.Context(), queue, &polymq.SubscriberOptions{Prefetch: prefetch})
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

// within is a context that ends d from now, and with t.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
