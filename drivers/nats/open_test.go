package nats

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/polymq/polymq/driver"
)

const (
	unavailable = `{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`
	available   = `{"api":{"level":2}}`
)

// memberOf is the URL of a member of a cluster that only answers who asks for JetStream:
// with what answer gives for the nth question, or with the end of the connection and of
// the next ones, so that there is none when the next question is due.
func memberOf(t *testing.T, answer func(nth int) string) *driver.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	t.Cleanup(func() { l.Close() })
	var asked, down atomic.Int64
	serve := func(c net.Conn) {
		defer c.Close()
		fmt.Fprintf(c, "INFO {\"version\":%q,\"cluster\":\"c\",\"headers\":true,\"jetstream\":true,\"max_payload\":1048576}\r\n", minVersion)
		sids := map[string]string{} // by subject, without the wildcard
		for in := bufio.NewScanner(c); in.Scan(); {
			f := strings.Fields(in.Text())
			switch {
			case len(f) == 0:
			case f[0] == "PING":
				fmt.Fprint(c, "PONG\r\n")
			case f[0] == "SUB":
				sids[strings.TrimSuffix(f[1], "*")] = f[2]
			case f[0] == "PUB" && f[1] == "$JS.API.INFO":
				text := answer(int(asked.Add(1)))
				if text == "" {
					down.Store(4) // nats.go tries again after 25 ms, then after twice as long
					return
				}
				sid := sids[f[2][:strings.LastIndexByte(f[2], '.')+1]]
				fmt.Fprintf(c, "MSG %s %s %d\r\n%s\r\n", f[2], sid, len(text), text)
			}
		}
	}
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if down.Add(-1) >= 0 {
				c.Close()
				continue
			}
			serving.Go(func() { serve(c) })
		}
	})
	u, err := driver.ParseURL("nats://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestOpenWaits: who opens a connection while the cluster elects waits, also when its
// node goes meanwhile, and for no longer than ctx, as the error says.
func TestOpenWaits(t *testing.T) {
	u := memberOf(t, func(nth int) string {
		return map[int]string{1: unavailable, 3: unavailable, 4: available}[nth]
	})
	s, err := openStore(within(t), u, testConfig(t))
	if err != nil {
		t.Error("the node is back:", err)
	} else {
		s.Close(within(t))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*askAgain)
	defer cancel()
	s, err = openStore(ctx, memberOf(t, func(int) string { return unavailable }), testConfig(t))
	if err == nil {
		s.Close(within(t))
	}
	if !errors.Is(err, context.DeadlineExceeded) || !hasCode(err, codeNotAvailable) {
		t.Error("ctx has ended:", err)
	}
}
