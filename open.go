package polymq

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/polymq/polymq/driver"
)

// Options are what the URL cannot say. nil means the defaults.
type Options struct {
	// Logger hears of changes of the connection's state and of what no call
	// can return. Never of bodies, headers or passwords. Default: discard.
	Logger *slog.Logger
	// OnState is called on every change of the connection's state, one call
	// at a time: first with StateConnected, before Open returns, and last with
	// StateClosed, before Close does. err says why, nil where nothing is wrong.
	// It must return soon and must not close the connection. Default: none.
	OnState func(state State, err error)
	// Require lists features without which the program cannot work: Open
	// fails when the backend refuses one of them. Default: none.
	Require []Feature
	// Observers are told what happens on the connection: see Hooks. Default:
	// none.
	Observers []Observer
}

var (
	driversMu sync.RWMutex
	drivers   = map[string]driver.Driver{}
)

// The drivers of this module, for the error that names the import to add.
var known = map[string]string{
	"amqp":             "amqp",
	"amqps":            "amqp",
	"nats":             "nats",
	"tls+nats":         "nats",
	"redis":            "redis",
	"redis+cluster":    "redis",
	"redis+sentinel":   "redis",
	"rediss":           "redis",
	"rediss+cluster":   "redis",
	"rediss+sentinel":  "redis",
	"valkey":           "redis",
	"valkey+cluster":   "redis",
	"valkey+sentinel":  "redis",
	"valkeys":          "redis",
	"valkeys+cluster":  "redis",
	"valkeys+sentinel": "redis",
	"mem":              "mem",
}

// Register makes a driver known under a URL scheme. Drivers call it from an
// init function. It panics when d is nil or the scheme is taken.
func Register(scheme string, d driver.Driver) {
	driversMu.Lock()
	defer driversMu.Unlock()
	if d == nil {
		panic("polymq: Register: the driver is nil")
	}
	if _, taken := drivers[scheme]; taken {
		panic("polymq: Register: scheme " + scheme + " is registered twice")
	}
	drivers[scheme] = d
}

// Schemes are the registered URL schemes, sorted.
func Schemes() []string {
	driversMu.RLock()
	defer driversMu.RUnlock()
	return slices.Sorted(maps.Keys(drivers))
}

// URLFromEnv is the value of the environment variable POLYMQ_URL, or def where
// it is empty. Open itself never reads the environment.
func URLFromEnv(def string) string {
	return cmp.Or(os.Getenv("POLYMQ_URL"), def)
}

// Open connects to the broker that the URL names. It tries each host of the
// URL once and fails when none answers, when the URL has an option that the
// driver does not know, when the broker is too old or lacks a feature of
// Options.Require. A connection that was opened comes back by itself whenever
// it is lost, until Close.
//
// The end of ctx ends the attempt; afterwards ctx has no meaning to the
// connection. The URL's password is in no error and no log.
func Open(ctx context.Context, url string, opts *Options) (*Conn, error) {
	u, err := driver.ParseURL(url)
	if err != nil {
		return nil, &Error{Op: "open", Err: fmt.Errorf("%w: %w", ErrInvalid, err)}
	}
	driversMu.RLock()
	d := drivers[u.Scheme]
	driversMu.RUnlock()
	if d == nil {
		return nil, &Error{Op: "open", Scheme: u.Scheme, Name: u.String(), Err: unknownScheme(u.Scheme)}
	}
	c := newConn(u.Scheme, opts)
	c.hooks = observe(orZero(opts).Observers, ConnInfo{Scheme: u.Scheme, Hosts: slices.Clone(u.Hosts)})
	name := u.String()
	if err := ctx.Err(); err != nil {
		return nil, &Error{Op: "open", Scheme: u.Scheme, Name: name, Err: err}
	}
	dc, err := d.Open(ctx, u, driver.Config{Logger: c.log, OnState: c.onState})
	if err != nil {
		return nil, &Error{Op: "open", Scheme: u.Scheme, Name: name, Err: advised(err)}
	}
	c.serve(dc, opts)
	if c.refused != nil {
		// The connection is of no use, so how its closing ends is not either.
		_ = dc.Close(ctx)
		return nil, &Error{Op: "open", Scheme: u.Scheme, Name: name, Err: c.refused}
	}
	c.begin()
	return c, nil
}

// NewConn makes a connection of a driver's, for programs that own the native
// client and have handed it to the driver's own constructor. Closing the Conn
// closes dc. Where the backend refuses a feature of Options.Require, every
// method returns the error that Open would. Changes of state are heard of only
// as far as the driver's constructor was told whom to tell.
func NewConn(dc driver.Conn, opts *Options) *Conn {
	c := newConn("", opts)
	c.serve(dc, opts)
	c.hooks = observe(orZero(opts).Observers, ConnInfo{Backend: c.features.Backend})
	return c
}

// advised says what to do where nothing listens, or something without TLS, which
// every client says in words of its own.
func advised(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("nothing listens there: start the broker, or correct the host and port of the URL: %w", err)
	}
	if _, plain := errors.AsType[tls.RecordHeaderError](err); plain {
		return fmt.Errorf("there is no TLS at this port: name the one that has it, or write the scheme without TLS: %w", err)
	}
	return err
}

func unknownScheme(scheme string) error {
	if pkg, ok := known[scheme]; ok {
		return unsupported("no driver is registered for %s: add the import _ \"github.com/polymq/polymq/drivers/%s\"", scheme, pkg)
	}
	return unsupported("unknown URL scheme %q: this library has %s", scheme, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
}
