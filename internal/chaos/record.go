package chaos

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const ledgerSuffix = ".ledger"

// A record is what all ledgers say, and which faults there were.
type record struct {
	messages   map[string]*message
	deliveries map[string]map[string][]*delivery // by queue and ID, in order of time
	clients    map[string]*tally
	faults     []*fault
	violations []string
	// counts of what is attempts: where they count what was only prefetched.
	countsReturned bool
}

// A message is one publish.
type message struct {
	id, key, client string
	seq             int
	begun, ended    time.Time // ended is zero while there is no outcome
	outcome         string
}

// A delivery is one hand-out.
type delivery struct {
	client      string
	at, settled time.Time // settled is when its settlement began; zero: never
	attempt     int
	redelivered bool
	act         string
	failed      bool // the settlement
}

// A tally is what one client process did when.
type tally struct {
	name       string
	ended      time.Time // zero while it runs; before a kill
	confirms   []time.Time
	deliveries []time.Time
	order      map[string][]string // IDs by queue, as they came
	lost       []time.Time         // its connection
	open       map[string]*delivery
	offset     int64
}

// A fault is a step that was done.
type fault struct {
	step
	// begun is before the fault, ready when the broker, or the new leader, served
	// again, and over when all of it was past.
	begun, ready, over time.Time
}

func newRecord() *record {
	return &record{messages: map[string]*message{}, deliveries: map[string]map[string][]*delivery{}, clients: map[string]*tally{}}
}

func (r *record) client(name string) *tally {
	t := r.clients[name]
	if t == nil {
		t = &tally{name: name, order: map[string][]string{}, open: map[string]*delivery{}}
		r.clients[name] = t
	}
	return t
}

func (r *record) violation(format string, args ...any) {
	r.violations = append(r.violations, fmt.Sprintf(format, args...))
}

// read takes in what the ledgers in dir have got since the last time.
func (r *record) read(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*"+ledgerSuffix))
	if err != nil {
		return err
	}
	for _, name := range names {
		t := r.client(strings.TrimSuffix(filepath.Base(name), ledgerSuffix))
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(io.NewSectionReader(f, t.offset, 1<<40))
		f.Close()
		if err != nil {
			return err
		}
		// What has no end yet is read the next time.
		text = text[:bytes.LastIndexByte(text, '\n')+1]
		t.offset += int64(len(text))
		for line := range strings.Lines(string(text)) {
			if err := r.enter(t, strings.Fields(line)); err != nil {
				return fmt.Errorf("%s: %q: %w", name, line, err)
			}
		}
	}
	return nil
}

func (r *record) enter(t *tally, f []string) error {
	nanos, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		return err
	}
	at := time.Unix(0, nanos)
	switch op, f := f[1], f[2:]; op {
	case "i":
		_, number, _ := strings.Cut(f[0], "/")
		seq, err := strconv.Atoi(number)
		if err != nil {
			return err
		}
		r.messages[f[0]] = &message{id: f[0], key: f[1], client: t.name, seq: seq, begun: at}
	case "o":
		m := r.messages[f[0]]
		m.ended, m.outcome = at, f[1]
		if m.outcome == confirmed {
			t.confirms = append(t.confirms, at)
		}
	case "d":
		attempt, err := strconv.Atoi(f[2])
		if err != nil {
			return err
		}
		d := &delivery{client: t.name, at: at, attempt: attempt, redelivered: f[3] == "true", act: f[4]}
		if d.act != actHold {
			d.settled = at
		}
		r.deliver(f[0], f[1], d)
		t.deliveries = append(t.deliveries, at)
		t.order[f[0]] = append(t.order[f[0]], f[1])
		t.open[f[0]+" "+f[1]] = d
	case "s":
		t.open[f[0]+" "+f[1]].settled = at
	case "e":
		t.open[f[0]+" "+f[1]].failed = true
	case "c":
		if f[0] == "disconnected" {
			t.lost = append(t.lost, at)
		}
	case "x":
		r.violation("the client %s gave up: %s", t.name, strings.Join(f, " "))
	}
	return nil
}

// deliver puts a delivery among those of its message, which another ledger may have
// had before.
func (r *record) deliver(queue, id string, d *delivery) {
	if r.deliveries[queue] == nil {
		r.deliveries[queue] = map[string][]*delivery{}
	}
	list := append(r.deliveries[queue][id], d)
	for i := len(list) - 1; i > 0 && list[i].at.Before(list[i-1].at); i-- {
		list[i], list[i-1] = list[i-1], list[i]
	}
	r.deliveries[queue][id] = list
}

// delivered is the number of deliveries.
func (r *record) delivered() int {
	n := 0
	for _, t := range r.clients {
		n += len(t.deliveries)
	}
	return n
}

// lost are the confirmed messages that a queue has not delivered.
func (r *record) lost() []string {
	var lost []string
	for id, m := range r.messages {
		if m.outcome != confirmed {
			continue
		}
		for _, q := range routes(m.key) {
			if len(r.deliveries[q][id]) == 0 {
				lost = append(lost, id+" in "+q)
			}
		}
	}
	return lost
}
