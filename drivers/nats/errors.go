package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq/driver"
)

// Codes of JetStream's errors that decide what happens next.
const (
	codeStreamNotFound    = 10059
	codeConsumerNotFound  = 10014
	codeMessageNotFound   = 10037
	codeSequenceNotFound  = 10043
	codeDeleteFailed      = 10057
	codeStreamExists      = 10058
	codeWrongLastSequence = 10071
	// codeBusy is what a clustered stream says to a second condition on a
	// subject while the first is on its way through Raft; it says nothing about
	// the condition itself.
	codeBusy = 10164
	// codeCreateFailed is also what one of two clients can get that create the
	// same stream at the same moment.
	codeCreateFailed    = 10049
	codeNotLeader       = 10009
	codeNotAvailable    = 10008
	codeMessageTooLarge = 10054
	codeHeaderTooLarge  = 10097
	codeStoreFailed     = 10077
	codeUpdateFailed    = 10069
)

// publishCodes says what the answers to a publish mean that are not a refusal.
// They are those of nats-server 2.15. A refusal is certain and stays one: the
// stream is sealed (10109), or the message has headers of the server's own that the
// queue's stream does not allow, which polymq does not send (10060, 10070, 10071,
// 10111, 10165 to 10171, 10174 to 10212, 10223, 10227). Where the stream is not
// found the queue is looked for. codeStoreFailed is a refusal too (a limit that
// somebody set on the stream), except where the stream was just being closed or the
// disk is full.
var publishCodes = map[int]error{
	codeMessageTooLarge: driver.ErrTooLarge,
	codeHeaderTooLarge:  driver.ErrTooLarge,
	codeNotAvailable:    driver.ErrUnconfirmed, // no leader
	codeNotLeader:       driver.ErrUnconfirmed,
	10035:               driver.ErrUnconfirmed, // the account is being loaded or unloaded
	10039:               driver.ErrUnconfirmed, // JetStream is, for the account
	10076:               driver.ErrUnconfirmed, // or the server
	10096:               driver.ErrUnconfirmed, // the stream is
	10118:               driver.ErrUnconfirmed, // or is offline
	10194:               driver.ErrUnconfirmed, // likewise
	10158:               driver.ErrUnconfirmed, // an earlier try is on its way through Raft
	10163:               driver.ErrUnconfirmed, // the leader is new
	codeBusy:            driver.ErrUnconfirmed,
	10002:               driver.ErrUnconfirmed, // the account's storage is used up: publishers wait, as
	10023:               driver.ErrUnconfirmed, // for RabbitMQ's alarms; or the server's is,
	10028:               driver.ErrUnconfirmed, // in memory
	10047:               driver.ErrUnconfirmed, // or on disk
	10167:               driver.ErrUnconfirmed, // the stream's queue is full
}

// published is the outcome of a publish that was answered with err. What is
// unknown is sent again; so is what no code speaks for.
func published(err error) error {
	var answer *apiError
	if !errors.As(err, &answer) {
		return fmt.Errorf("%w: %w", driver.ErrUnconfirmed, err)
	}
	outcome := publishCodes[answer.ErrCode]
	switch {
	case outcome != nil:
	case answer.ErrCode == codeStoreFailed && (strings.Contains(answer.Description, "store is closed") || strings.Contains(answer.Description, "no space left")):
		outcome = driver.ErrUnconfirmed
	default:
		outcome = driver.ErrRejected
	}
	return fmt.Errorf("%w: %w", outcome, err)
}

// apiError is an error that the server put into a reply.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string {
	return fmt.Sprintf("nats: %s (%d)", e.Description, e.ErrCode)
}

// again tries for some seconds to create, or to see, what another client may be
// creating at the same moment, which a busy server, or a cluster, can take its time for.
func again(ctx context.Context, try func() error) error {
	err := try()
	for pause := 20 * time.Millisecond; hasCode(err, codeCreateFailed, codeStreamNotFound) && pause < 2*time.Second; pause *= 2 {
		if wait(ctx, pause) != nil {
			break
		}
		err = try()
	}
	return err
}

// hasCode reports whether err is JetStream's error of one of these codes.
func hasCode(err error, codes ...int) bool {
	have := 0
	var own *apiError
	var js *jetstream.APIError
	switch {
	case errors.As(err, &own):
		have = own.ErrCode
	case errors.As(err, &js):
		have = int(js.ErrorCode)
	default:
		return false
	}
	for _, c := range codes {
		if have == c {
			return true
		}
	}
	return false
}

// isMessageGone reports that a message that was to be deleted is not there: the
// server has a code for it only where it looks before it tries.
func isMessageGone(err error) bool {
	return hasCode(err, codeMessageNotFound, codeSequenceNotFound) || hasCode(err, codeDeleteFailed) && strings.Contains(err.Error(), "no message found")
}

func isStreamGone(err error) bool { return hasCode(err, codeStreamNotFound) }

// passing reports errors after which the same request may well succeed: the
// connection was lost, nobody answered in time, or a cluster has no leader yet.
func passing(err error) bool {
	return errors.Is(err, natsgo.ErrReconnectBufExceeded) || errors.Is(err, natsgo.ErrDisconnected) ||
		errors.Is(err, natsgo.ErrTimeout) || errors.Is(err, natsgo.ErrNoResponders) ||
		errors.Is(err, jetstream.ErrNoStreamResponse) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		hasCode(err, codeNotLeader, codeNotAvailable) ||
		// What a stream says that another client is deleting at this moment.
		hasCode(err, codeUpdateFailed) && strings.Contains(err.Error(), "store is closed")
}

// wrap puts the sentinel of package driver that fits before a native error.
func wrap(err error) error {
	switch {
	case err == nil, errors.Is(err, driver.ErrPermission):
		return err
	case errors.Is(err, natsgo.ErrConnectionClosed):
		return fmt.Errorf("%w: %w", driver.ErrClosed, err)
	case errors.Is(err, natsgo.ErrAuthorization), errors.Is(err, natsgo.ErrAuthExpired),
		errors.Is(err, natsgo.ErrAuthRevoked), errors.Is(err, natsgo.ErrAccountAuthExpired),
		errors.Is(err, natsgo.ErrPermissionViolation):
		return fmt.Errorf("%w: %w", driver.ErrPermission, err)
	case errors.Is(err, natsgo.ErrMaxPayload), hasCode(err, codeMessageTooLarge, codeHeaderTooLarge):
		return fmt.Errorf("%w: %w", driver.ErrTooLarge, err)
	case hasCode(err, codeStreamNotFound, codeConsumerNotFound):
		return fmt.Errorf("%w: %w", driver.ErrNotFound, err)
	}
	return err
}
