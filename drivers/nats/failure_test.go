package nats

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestKilledServer kills the server under load. What was confirmed is there
// afterwards, and what was retried is there once.
func TestKilledServer(t *testing.T) {
	b := testbroker.Start(t, "nats")
	c := open(t, b.URL())
	declare(t, c, routing.Queue{Name: "q"})
	p := publisherOf(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var mu sync.Mutex
	confirmed := map[string]bool{}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				ids := numbered(fmt.Sprintf("w%d-%d-", w, i), 0, 20)
				for j, err := range publish(t, p, "q", ids...) {
					if err != nil {
						t.Errorf("%s: %v", ids[j], err)
						continue
					}
					mu.Lock()
					confirmed[ids[j]] = true
					mu.Unlock()
				}
			}
		})
	}
	time.Sleep(500 * time.Millisecond) // of load
	b.Restart()
	wg.Wait()
	t.Logf("%d confirmed", len(confirmed))
	s := subscribe(t, c, "q", 500)
	seen := map[string]int{}
	for len(seen) < len(confirmed) {
		for _, d := range receive(t, s, 1) {
			seen[d.Message.ID]++
			settle(t, s, d, driver.Ack, 0)
		}
	}
	mustPublish(t, p, "q", "end")
	for {
		d := receive(t, s, 1)[0]
		if d.Message.ID == "end" {
			break
		}
		seen[d.Message.ID]++
	}
	for id, n := range seen {
		if n != 1 || !confirmed[id] {
			t.Errorf("%s was delivered %d times; confirmed: %v", id, n, confirmed[id])
		}
	}
}

// TestCutWhileConsuming cuts the connection again and again while a subscriber
// takes messages. Its prefetch is never exceeded (the inbox panics), and every
// message comes.
func TestCutWhileConsuming(t *testing.T) {
	url := testbroker.URL(t, "nats")
	link := testbroker.Proxy(t, url+"&lease=2s")
	direct := open(t, url+"&lease=2s")
	declare(t, direct, routing.Queue{Name: "q"})
	p := publisherOf(t, direct)
	ids := numbered("m", 0, 5000)
	mustPublish(t, p, "q", ids...)
	c := open(t, link.URL())
	s := subscribe(t, c, "q", 50)
	seen := map[string]bool{}
	for len(seen) < len(ids) {
		d := receive(t, s, 1)[0]
		seen[d.Message.ID] = true
		err := s.Settle(within(t), d, driver.Ack, 0)
		if err != nil && !errors.Is(err, driver.ErrLost) {
			t.Fatal(err)
		}
		if len(seen)%1000 == 500 {
			link.Cut()
		}
	}
	if err := s.Close(within(t)); err != nil {
		t.Fatal(err)
	}
}

func TestForeignEntries(t *testing.T) {
	url := testbroker.URL(t, "nats")
	raw := openRaw(t, url)
	c := emulated(t, raw)
	declare(t, c, routing.Queue{Name: "q"})
	var stream string
	for name := range raw.js.StreamNames(within(t)).Name() {
		if strings.HasPrefix(name, "POLYMQ_"+raw.names.ns+"_q_") {
			stream = name
		}
	}
	_, incarnation, _ := strings.Cut(stream, "_q_")
	subject := raw.names.queue(incarnation) + ".m"
	put := func(h natsgo.Header, body string) {
		t.Helper()
		if _, err := raw.nc.RequestMsg(&natsgo.Msg{Subject: subject, Header: h, Data: []byte(body)}, 5*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	put(nil, "plain")
	put(natsgo.Header{"X-Mine": {"a"}, "Twice": {"a", "b"}}, "with headers")
	put(natsgo.Header{"Polymq-time": {"never"}, "Polymq-key": {"k"}, "Polymq-t.x": {"int:many"}, "Polymq-new": {"1"}, "Nats-Msg-Id": {"id%"}}, "malformed")
	mustPublish(t, publisherOf(t, c), "q", "ours")
	s := subscribe(t, c, "q", 10)
	ds := receive(t, s, 4)
	if d := ds[0]; string(d.Message.Body) != "plain" || d.Exchange != "" || d.Message.Header != nil || d.Attempt != 1 {
		t.Errorf("%+v", d)
	}
	if d := ds[1]; d.Message.Header["X-Mine"] != "a" || fmt.Sprint(d.Message.Header["Twice"]) != "[a b]" {
		t.Errorf("%+v", d)
	}
	if d := ds[2]; string(d.Message.Body) != "malformed" || d.Message.Key != "k" || d.Message.ID != "id%" {
		t.Errorf("%+v", d)
	}
	if d := ds[3]; d.Message.ID != "ours" {
		t.Errorf("%+v", d)
	}
	// What is no message and no record finds no stream that keeps it.
	if _, err := raw.nc.Request(raw.names.queue(incarnation)+".other", nil, 5*time.Second); !errors.Is(err, natsgo.ErrNoResponders) {
		t.Errorf("a foreign subject: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	try := func(url string) error {
		t.Helper()
		u, err := driver.ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		c, err := (Driver{}).Open(ctx, u, testConfig(t))
		if err == nil {
			c.Close(ctx)
			t.Fatalf("%s was opened", u)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error holds the password: %v", err)
		}
		return err
	}
	at := testbroker.URL(t, "nats")
	_, host, _ := strings.Cut(at, "@")
	host, _, _ = strings.Cut(host, "?")
	host = strings.TrimSuffix(host, "/")
	if err := try("nats://polymq:secret@" + host); !errors.Is(err, driver.ErrPermission) {
		t.Errorf("wrong password: %v", err)
	}
	for _, bad := range []string{"?lease=1ms", "?replicas=2", "?prefetch=5"} {
		if err := try("nats://" + host + "/" + bad); !strings.Contains(err.Error(), "option") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if err := try("nats://" + host + "/path"); !strings.Contains(err.Error(), "vhost") {
		t.Errorf("a path: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	if err := try("nats://u:secret@" + closed); !strings.Contains(err.Error(), "refused") {
		t.Errorf("a closed port: %v", err)
	}
}

// TestOpenEndsWithContext opens a server that accepts and says nothing.
func TestOpenEndsWithContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, _ := driver.ParseURL("nats://" + l.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := (Driver{}).Open(ctx, u, testConfig(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("Open took %v", took)
	}
}

func TestVersions(t *testing.T) {
	for version, want := range map[string]bool{
		"2.12.2": true, "2.12.10": true, "2.13.0-RC.1": true, "2.15.2": true, "3.0.0": true, "v2.13.1": true,
		"2.12.1": false, "2.12.0": false, "2.11.9": false, "2.12": false, "2.9.10": false, "1.4.1": false, "": false, "new": false,
	} {
		if newEnough(version) != want {
			t.Errorf("%q: %v", version, !want)
		}
	}
}

// TestNoGoroutineStays counts goroutines before and after a connection with
// everything on it.
func TestNoGoroutineStays(t *testing.T) {
	url := testbroker.URL(t, "nats")
	before := runtime.NumGoroutine()
	s := openRaw(t, url)
	c := emulated(t, s)
	declare(t, c, routing.Queue{Name: "q"})
	mustPublish(t, publisherOf(t, c), "q", numbered("m", 0, 10)...)
	receive(t, subscribe(t, c, "q", 3), 2)
	subscribe(t, c, "q", 3)
	if err := c.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	// nats.go's reader ends when the socket is closed, just after its handler
	// has told so.
	deadline := time.Now().Add(30 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines, %d before:\n%s", n, before, buf[:runtime.Stack(buf, true)])
	}
}
