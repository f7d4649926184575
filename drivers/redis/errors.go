package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/polymq/polymq/driver"
)

// reply is the error that the server answered with, "" where it did not answer.
func reply(err error) string {
	if err == nil {
		return "" // what follows allocates
	}
	var re goredis.Error
	if errors.As(err, &re) && !errors.Is(err, goredis.Nil) {
		return re.Error()
	}
	return ""
}

// transient reports answers that mean: nothing was done, or not all of it, try
// again soon, at whichever server it is then.
func transient(answer string) bool {
	for _, p := range []string{"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED ", "ASK ", unblocked, "NOREPLICAS", noWait, "BUSY ", "ERR max number of clients"} {
		if strings.HasPrefix(answer, p) {
			return true
		}
	}
	return noFunction(answer) || partly(answer) || full(answer)
}

// unblocked begins the answer to who waited at a server that is no master any more, or
// in a stream that is not there any more: it may be at another server. Whether the
// queue is gone the next call tells.
const unblocked = "UNBLOCKED "

// noWait begins the answer to who would wait at a server that is no master any more, or
// has no append-only file any more: WAIT and WAITAOF.
const noWait = "ERR WAIT"

// partly reports an answer upon which a function may have done a part of its
// work: keys of its slot were just being moved to another server of the cluster.
func partly(answer string) bool {
	return strings.Contains(answer, "attempted to access a non local key")
}

func noFunction(answer string) bool { return strings.HasPrefix(answer, "ERR Function not found") }

// lost reports a failure of the connection: whether the server has done what
// it was asked is unknown.
func lost(err error) bool {
	return err != nil && !errors.Is(err, goredis.Nil) && reply(err) == ""
}

// endedBy puts ctx's end into err where that is why a connection failed. The client
// gives the connection the deadline of ctx, and can see it pass a moment before
// ctx says so.
func endedBy(ctx context.Context, err error) error {
	cause := ctx.Err()
	if at, ok := ctx.Deadline(); ok && cause == nil && time.Until(at) <= time.Millisecond {
		cause = context.DeadlineExceeded
	}
	if cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// notSent reports failures before anything was sent.
func notSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// mapped gives the server's answer its sentinel.
func mapped(err error) error {
	answer := reply(err)
	if isDenied(answer) {
		return denied(answer, "xgroup|create", err)
	}
	word, _, _ := strings.Cut(answer, " ")
	switch word {
	case "":
		return err
	case "NOAUTH", "WRONGPASS":
		return fmt.Errorf("%w: check the user name and password of the URL: %w", driver.ErrPermission, err)
	case "POLYMQFULL":
		return fmt.Errorf("%w: the queue has as many messages as its limits allow: %w", driver.ErrRejected, err)
	case "OOM", "MISCONF":
		return fmt.Errorf("%w: Redis takes no writes: %w", driver.ErrRejected, err)
	case "POLYMQWIRE":
		return fmt.Errorf("%w: a newer version of polymq uses this namespace: update this program: %w", errors.ErrUnsupported, err)
	case "NOGROUP", "WRONGTYPE":
		return fmt.Errorf("%w: the queue's storage is not as it was made: %w", driver.ErrNotFound, err)
	}
	if strings.HasPrefix(answer, "ERR invalid password") || strings.HasPrefix(answer, "ERR AUTH") {
		return fmt.Errorf("%w: check the user name and password of the URL: %w", driver.ErrPermission, err)
	}
	return err
}

// isDenied reports a command or key that the user's ACL does not grant: to a call,
// or to a function that it made, of which Redis says it before 7.2 and after.
func isDenied(answer string) bool {
	for _, p := range []string{"NOPERM", "ERR The user executing the script can't ", "ERR ACL failure in script"} {
		if strings.HasPrefix(answer, p) {
			return true
		}
	}
	return false
}

// denied names the right that is missing; making is the command that a function
// ran which did not say so, as Redis before 7.2 keeps it to itself.
func denied(answer, making string, err error) error {
	right := "a right on the keys of the topology ({vhost}:version, :topology and :changes; an admin writes them), or on those of a queue"
	switch command := between(answer, "to run the '", "'"); {
	case command != "":
		right = "+" + command
	case strings.Contains(answer, "key"), strings.Contains(answer, "channel"):
	case strings.Contains(answer, libraryName+"_delete"), strings.Contains(answer, libraryName+"_rules_delete"):
		right = "+unlink"
	default:
		right = "+" + making
	}
	return fmt.Errorf("%w: the user's ACL lacks %s (see Permissions in the documentation of drivers/redis): %w", driver.ErrPermission, right, err)
}

func between(s, before, after string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, ok := strings.Cut(s, after)
	if !ok {
		return ""
	}
	return s
}

// refused is the outcome of a message that the server would not store.
func refused(err error) error {
	if answer := reply(err); isDenied(answer) {
		return denied(answer, "xadd", err)
	}
	err = mapped(err)
	if errors.Is(err, driver.ErrPermission) || errors.Is(err, driver.ErrRejected) {
		return err
	}
	return fmt.Errorf("%w: %w", driver.ErrRejected, err)
}

func unconfirmed(err error) error { return fmt.Errorf("%w: %w", driver.ErrUnconfirmed, err) }

// ended is the error of a call whose ctx ended while it kept failing.
func ended(ctx context.Context, last error) error {
	if last == nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w (last try: %w)", ctx.Err(), last)
}
