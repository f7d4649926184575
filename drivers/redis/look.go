package redis

import (
	"runtime"
	"time"

	"github.com/polymq/polymq/internal/nowait"
)

// look is how the answer to a lone message is taken where one follows upon the other:
// a server on the same machine has it in less time than it takes to go to sleep and
// be woken, so that the socket is looked at for a moment before anyone waits for it.
// Where answers take longer that would be a processor's time for nothing: after some
// looks in vain each doubles the number of answers for which there is none, until one
// has been of use.
type look struct {
	socket *nowait.Conn // nil: it has to wait
	on     bool         // for the next read
	last   time.Time    // one was of a lone message
	vain   int          // looks, one after another
	pass   int          // answers that are not looked for
}

const (
	lookTime  = 100 * time.Microsecond
	lookPause = time.Millisecond // between two messages: who sends less waits as well as anyone
	maxVain   = 4                // a busy machine's
	maxPass   = 1 << 12          // 25 ns an answer
)

// read takes what comes within lookTime, 0 if nothing does or it is not worth a look.
func (l *look) read(p []byte) (n int) {
	if !l.on || l.socket == nil {
		return 0
	}
	if l.on = false; l.pass > 0 {
		l.pass--
		return 0
	}
	start := time.Now()
	soon := start.Sub(l.last) < lookPause
	if l.last = start; !soon {
		return 0
	}
	for ; time.Since(start) < lookTime; runtime.Gosched() {
		if n = l.socket.Read(p); n > 0 {
			l.vain = 0
			return n
		}
	}
	if l.vain++; l.vain > maxVain {
		l.pass = min(1<<min(l.vain-maxVain, 20), maxPass)
	}
	return 0
}
