package amqp

import (
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// TestFatalMessage: what ends the whole connection goes alone the next time,
// and not for ever.
func TestFatalMessage(t *testing.T) {
	for code, fatal := range map[int]bool{amqp091.FrameError: true, amqp091.SyntaxError: true, amqp091.UnexpectedFrame: true, amqp091.InternalError: true, amqp091.ConnectionForced: false} {
		err := &amqp091.Error{Code: code, Server: true}
		from := &publisher{}
		rest, guilty, careful := blame(err, []item{{from: from, id: "1"}, {from: from, id: "2"}})
		if len(rest) != 2 || len(guilty) != 0 || careful != fatal {
			t.Fatalf("%d with two in flight: rest %d, guilty %d, careful %v", code, len(rest), len(guilty), careful)
		}
		alone := rest[:1]
		for n := 1; n < maxDeaths; n++ {
			if alone, guilty, careful = blame(err, alone); len(alone) != 1 || careful != fatal {
				t.Fatalf("%d, alone %d times: rest %d, guilty %d, careful %v", code, n, len(alone), len(guilty), careful)
			}
		}
		if _, guilty, _ = blame(err, alone); (len(guilty) == 1) != fatal {
			t.Errorf("%d, alone %d times: guilty %d", code, maxDeaths, len(guilty))
		}
	}
	local := &amqp091.Error{Code: amqp091.FrameError} // amqp091's word for a lost connection
	if rest, _, careful := blame(local, []item{{}}); len(rest) != 1 || careful {
		t.Error("a lost connection is put on what was in flight")
	}
}
