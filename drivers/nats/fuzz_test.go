package nats

import (
	"bytes"
	"compress/gzip"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/routing"
)

// ruled is a queue that has all rules.
func ruled() *emulate.Queue {
	return &emulate.Queue{Incarnation: "i", Queue: routing.Queue{Name: "q", MaxLength: 3, MaxBytes: 100, MaxPriority: 2, TTL: time.Second, DeadLetterExchange: "x"}}
}

// FuzzDeeds: whatever deeds somebody has written, a book takes them, and what
// becomes of it can be written down and read again.
func FuzzDeeds(f *testing.F) {
	f.Add(`[{"do":"join","by":"r","n":2,"ms":1000},{"do":"ack","by":"r","list":[[1,1]]},{"do":"nack","by":"r","list":[[2,1,500]]}]`, int64(1e9))
	f.Add(`[{"do":"join","by":"r","n":-2,"ms":-1000},{"do":"limit","by":"r","n":-1},{"do":"leave","by":"r","list":[[],[1]]}]`, int64(-1))
	f.Add(`[{"do":"join","by":"r","n":9},{"do":"back","by":"r","list":[[1,1,-5]]},{"do":"sweep","n":-1,"ms":9223372036854775807},{"do":"drop","list":[[1],[]]}]`, int64(1<<62))
	f.Add(`[{"do":"purge","by":"p","list":[[]]},{"do":"purge","list":[[-1]]},{"do":"touch"},{"do":"tick"},{"do":"alive","by":"r"},{}]`, int64(5))
	f.Fuzz(func(t *testing.T, text string, step int64) {
		deeds, err := parseDeeds(text)
		if err != nil {
			return
		}
		for _, q := range []*emulate.Queue{ruled(), {Incarnation: "i", Queue: routing.Queue{Name: "q", SingleActiveConsumer: true}}} {
			b := newBook(q)
			at := int64(1e18)
			for i := range deeds {
				b.message(uint64(i+1), at, i, i, time.Duration(i)*time.Millisecond)
				b.deed(&deeds[i], at)
				at += step
			}
			_, _, _, _ = b.due(), b.consumers(), b.unsettled(), b.unswept(at)
			body, err := b.snapshot(uint64(len(deeds) + 1)).encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decodeSnapshot(body); err != nil {
				t.Fatalf("after %s: %v", text, err)
			}
		}
	})
}

// FuzzSnapshot: whatever lies there as a snapshot is an error or a book that goes
// on.
func FuzzSnapshot(f *testing.F) {
	for _, s := range []string{
		`{"at":5,"now":1,"readers":[{"id":"r","n":2,"ms":1000,"until":9}],"turn":[0],"touched":[[2,1,1,1,0],[3,1,1,0,7]],"left":[{"seq":4,"reason":"expired"}],"live":[2,3],"refused":[[1,1,5]],"taken":4,"purged":[{"by":"p","n":1,"at":1}]}`,
		`{"at":9223372036854775808,"live":[9223372036854775808,9223372036854775808]}`, `{"at":1,"live":[1]}`, `{"at":1,"turn":[0]}`,
		`{"at":3,"live":[1,3],"readers":[{"n":-1,"ms":-1}],"turn":[0,0],"touched":[[1,-1,-1,1,-1],[1,0,0,2,5]],"left":[{"seq":1},{"seq":1},{"seq":9}]}`,
		`{"at":2,"live":[0,2],"refused":[[5,1,0]],"forgotten":7}`, `null`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = decodeSnapshot(data)
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, _ = z.Write(data)
		z.Close()
		s, err := decodeSnapshot(packed.Bytes())
		if err != nil {
			return
		}
		live := uint64(0)
		for i := 1; i < len(s.Live); i += 2 {
			live += s.Live[i]
		}
		if live > 1000 {
			return // that many messages are that much work
		}
		l := &loading{q: ruled(), until: s.At}
		for seq := range uint64(3) {
			l.message(seq+1, s.Now, 1, 10, 0)
		}
		b := l.book(s)
		for _, d := range []deed{
			{Do: doJoin, By: "r", N: 2, MS: 1000}, {Do: doSweep, N: 5, MS: 10}, {Do: doAck, By: "r", List: [][]int64{{1, 1}, {2, 2}}},
			{Do: doNack, By: "r", List: [][]int64{{2, 1, 5}}}, {Do: doPurge, By: "p"}, {Do: doLeave, By: "r"},
		} {
			b.deed(&d, s.Now+1)
		}
		_ = b.snapshot(s.At + 1)
	})
}

// FuzzAnswers: whatever the server, or another program, answers.
func FuzzAnswers(f *testing.F) {
	for _, s := range []string{
		"$JS.ACK.stream.subscribers.1.5.7.1700000000000000000.3", "$JS.ACK._.hash.stream.subscribers.2.5.7.1700000000000000000.3.x", "$JS.ACK.......", "1-2", "-", "99999999999999999999-1",
		`{"stream":"s", "seq":5}`, `{"stream":"s","seq":99999999999999999999}`, `{"error":{"code":400,"err_code":10071,"description":"x"}}`, `{"stream":`, `{"consumer":"c","held":[1,2]}`,
		`{"base":4,"changes":[{"at":5,"name":"q.x","data":{"v":1}}]}`, `{"changes":[{"data":null}]}`, "v2.12.2-RC.1", "..", `permissions violation for Publish to "`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, ok := parseAckSubject(s); ok && a.deliveries < 1 {
			t.Errorf("%q is read as %+v", s, a)
		}
		if i, _, ok := parseSlot(s); ok && i < 0 {
			t.Errorf("slot %d", i)
		}
		if seq, err := parseAck([]byte(s)); err == nil && seq == 0 {
			t.Errorf("%q is read as an answer without a sequence", s)
		} else if err != nil {
			_, _, _ = published(err), wrap(err), passing(err)
		}
		_, _ = parseHeld([]byte(s))
		if r, err := parseRecent(5, []byte(s)); err == nil {
			r, _ = r.with(6, []emulate.Element{{Name: "x.y", Data: []byte(`{}`)}})
			_ = r.settled(nil)
		}
		_ = newEnough(s)
		_ = quoted(s, `Publish to "`)
	})
}

// FuzzHeaders: whatever headers a message has, a delivery is made of it.
func FuzzHeaders(f *testing.F) {
	for _, s := range []string{
		"Polymq-id: x\r\nPolymq-priority: 300\r\nPolymq-ttl: -5\r\nNats-Sequence: 5\r\nNats-Time-Stamp: 2026-01-01T00:00:00Z\r\nother: a\r\nother: b\r\n",
		"Polymq-t.a: list:[[]]\r\nPolymq-%: %\r\nNats-Msg-Size: 99999999999999999999\r\n", ":\r\n", "a\r\n", "Polymq-:\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, lines []byte) {
		header, err := natsgo.DecodeHeadersMsg(append(append([]byte("NATS/1.0\r\n"), lines...), "\r\n"...))
		if err != nil {
			return
		}
		m := &natsgo.Msg{Header: header, Data: lines}
		var d driver.Delivery
		_ = read(&d, m)
		if priority, size, ttl := outside(m); priority < 0 || priority > 255 || size < 0 || ttl < 0 {
			t.Errorf("%q is read as priority %d, size %d, TTL %v", lines, priority, size, ttl)
		}
		_, _ = parseStored(m)
	})
}
