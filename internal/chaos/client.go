package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
)

// The environment of a client process.
const (
	nameVariable = "CHAOS_CLIENT" // the client's name, of which the first letter is its role
	dirVariable  = "CHAOS_DIR"
	urlVariable  = "CHAOS_URL"
	liarVariable = "CHAOS_LIAR"
)

// Client is the whole of a process that was started as a client: it does not
// return there. Elsewhere it does nothing.
func Client() {
	name := os.Getenv(nameVariable)
	if name == "" {
		return
	}
	l, err := openLedger(filepath.Join(os.Getenv(dirVariable), name+ledgerSuffix))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// The run ends a client in order by closing its input; so does its death.
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	if err := (&client{name, l}).run(ctx); err != nil {
		l.note("x", err)
		os.Exit(1)
	}
	os.Exit(0)
}

type client struct {
	name   string
	ledger *ledger
}

func (c *client) run(ctx context.Context) error {
	conn, err := c.open(ctx)
	if err != nil {
		return nil // it was to end before it had begun
	}
	work := c.consume
	if c.name[0] == 'p' {
		work = c.produce
	}
	err = work(ctx, conn)
	end, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return errors.Join(err, conn.Close(end))
}

// open tries until the broker is there: Open itself tries once.
func (c *client) open(ctx context.Context) (*polymq.Conn, error) {
	opts := &polymq.Options{
		Logger:  slog.New(slog.NewTextHandler(os.Stderr, nil)),
		OnState: func(s polymq.State, _ error) { c.ledger.note("c", s) },
	}
	for {
		conn, err := open(ctx, os.Getenv(urlVariable), os.Getenv(liarVariable) != "", opts)
		if err == nil {
			return conn, nil
		}
		fmt.Fprintln(os.Stderr, "open:", err)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func open(ctx context.Context, url string, lie bool, opts *polymq.Options) (*polymq.Conn, error) {
	if !lie {
		return polymq.Open(ctx, url, opts)
	}
	u, err := driver.ParseURL(url)
	if err != nil {
		return nil, err
	}
	dc, err := liar{}.Open(ctx, u, driver.Config{Logger: opts.Logger, OnState: opts.OnState})
	if err != nil {
		return nil, err
	}
	return polymq.NewConn(dc, opts), nil
}

// outcome is the word for what a publish returned.
func outcome(err error) string {
	switch {
	case err == nil:
		return confirmed
	case errors.Is(err, polymq.ErrUnconfirmed):
		return unknown
	case errors.Is(err, polymq.ErrRejected):
		return rejected
	case errors.Is(err, polymq.ErrUnroutable):
		return unroutable
	case errors.Is(err, polymq.ErrNotFound):
		return missing
	case errors.Is(err, polymq.ErrClosed), errors.Is(err, context.Canceled):
		return unsent
	}
	return err.Error()
}
