package chaos

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// A ledger is what one client process notes, a line each, in a file that is only
// appended to. A line is with the kernel when its method returns, so that the end
// of the process, however it comes, loses no knowledge:
//
//	time i id key                             it is about to publish
//	time o id outcome                         the outcome that it was told
//	time d queue id attempt redelivered act   it was handed a delivery; act says what it does at once
//	time s queue id                           it is about to settle a delivery that it has held
//	time e queue id error                     a settlement failed
//	time c state                              its connection changed
//	time x text                               it gives up
//
// The time is in nanoseconds since 1970; all processes share a machine and its clock.
type ledger struct {
	mu   sync.Mutex
	file *os.File
}

func openLedger(name string) (*ledger, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &ledger{file: f}, nil
}

// note panics where it cannot write: what a client does unseen proves nothing.
func (l *ledger) note(fields ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := fmt.Append(nil, time.Now().UnixNano())
	for _, f := range fields {
		text := strings.NewReplacer(" ", "_", "\n", "_").Replace(fmt.Sprint(f))
		line = fmt.Append(line, " ", text)
	}
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		panic(err)
	}
}

// What is done with a delivery.
const (
	actAck  = "ack"
	actNack = "nack"
	actHold = "hold" // and ack later
)

// The outcomes of a publish.
const (
	confirmed  = "confirmed"
	rejected   = "rejected"
	unroutable = "unroutable"
	missing    = "missing"
	unknown    = "unknown"
	unsent     = "unsent"
)
