package testbroker

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv("TESTBROKER_CHILD") != "" {
		crash()
	}
	Isolate()
	Main(m)
}

var schemes = []string{"amqp", "nats", "redis"}

// Every namespace is empty, is seen only by its own test, and is gone after it.
func TestURL(t *testing.T) {
	ctx := t.Context()
	t.Run("nats", func(t *testing.T) {
		if testing.Short() {
			t.Skip("-short: brokers are left out")
		}
		var base, name string
		t.Run("first", func(t *testing.T) {
			base = URL(t, "nats")
			if base == URL(t, "nats") {
				t.Fatal("two tests got one namespace")
			}
			u, err := url.Parse(base)
			if err != nil {
				t.Fatal(err)
			}
			name = u.Query().Get("vhost")
			c := natsAt(t, base)
			addStream(t, c, "X_"+name)
			addStream(t, c, "KEEP"+newName()[:4])
		})
		c := natsAt(t, base)
		left, err := c.streams(name)
		if err != nil || len(left) > 0 {
			t.Fatalf("left behind: %v, %v", left, err)
		}
		if all, err := c.streams("KEEP"); err != nil || len(all) != 1 {
			t.Fatalf("the streams of others: %v, %v", all, err)
		} else if err := c.request("$JS.API.STREAM.DELETE."+all[0], nil, nil); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("redis", func(t *testing.T) {
		if testing.Short() {
			t.Skip("-short: brokers are left out")
		}
		var base, name string
		t.Run("first", func(t *testing.T) {
			base = URL(t, "redis")
			u, err := url.Parse(base)
			if err != nil {
				t.Fatal(err)
			}
			name = u.Query().Get("vhost")
			redisDo(t, base, "SET", "x:{"+name+"}:y", "1")
			redisDo(t, base, "SET", "keep:"+name[:3], "1")
		})
		if keys := redisDo(t, base, "KEYS", "*"+name+"*").([]any); len(keys) > 0 {
			t.Fatalf("left behind: %v", keys)
		}
		if n := redisDo(t, base, "DEL", "keep:"+name[:3]); n != int64(1) {
			t.Fatal("a key of others was removed")
		}
	})
	t.Run("amqp", func(t *testing.T) {
		if testing.Short() {
			t.Skip("-short: brokers are left out")
		}
		var base, name string
		t.Run("first", func(t *testing.T) {
			base = URL(t, "amqp")
			u, err := url.Parse(base)
			if err != nil {
				t.Fatal(err)
			}
			name = strings.TrimPrefix(u.Path, "/")
			if err := manage(ctx, base, http.MethodPut, "/api/queues/"+name+"/q", "{}"); err != nil {
				t.Fatal(err)
			}
		})
		err := manage(ctx, base, http.MethodGet, "/api/vhosts/"+name, "")
		if err == nil || !strings.Contains(err.Error(), "404") {
			t.Fatalf("the vhost is left behind: %v", err)
		}
	})
	t.Run("mem", func(t *testing.T) {
		if a, b := URL(t, "mem"), URL(t, "mem"); a == b || !strings.HasPrefix(a, "mem://") {
			t.Fatalf("%s, %s", a, b)
		}
	})
}

// What a broker confirmed is there after it was killed and started again, at
// the same URL.
func TestRestart(t *testing.T) {
	t.Run("nats", func(t *testing.T) {
		b := Start(t, "nats")
		before := b.URL()
		addStream(t, natsAt(t, b.URL()), "KEPT")
		c := natsAt(t, b.URL())
		if err := c.request("kept.1", "body", nil); err != nil {
			t.Fatal(err)
		}
		b.Kill()
		if _, err := dialNATS(t.Context(), b.URL()); err == nil {
			t.Fatal("a killed broker answers")
		}
		b.Start()
		var info struct{ State struct{ Messages int } }
		if err := natsAt(t, b.URL()).request("$JS.API.STREAM.INFO.KEPT", nil, &info); err != nil || info.State.Messages != 1 {
			t.Fatalf("after the restart: %+v, %v", info, err)
		}
		if b.URL() != before {
			t.Fatal("the URL changed")
		}
	})
	t.Run("redis", func(t *testing.T) {
		b := Start(t, "redis")
		redisDo(t, b.URL(), "SET", "k", "kept")
		b.Restart()
		if v := redisDo(t, b.URL(), "GET", "k"); v != "kept" {
			t.Fatalf("after the restart: %v", v)
		}
	})
	t.Run("amqp", func(t *testing.T) {
		b := Start(t, "amqp")
		ctx := t.Context()
		if err := manage(ctx, b.URL(), http.MethodPut, "/api/queues/%2F/kept", `{"durable":true}`); err != nil {
			t.Fatal(err)
		}
		b.Restart()
		if err := manage(ctx, b.URL(), http.MethodGet, "/api/queues/%2F/kept", ""); err != nil {
			t.Fatal(err)
		}
	})
}

// A paused broker keeps its connections and answers once it is resumed.
func TestPause(t *testing.T) {
	b := Start(t, "redis")
	c := redisAt(t, b.URL())
	b.Pause()
	c.SetDeadline(time.Now().Add(100 * time.Millisecond))
	if v, err := c.do("PING"); err == nil {
		t.Fatalf("a paused broker answers %v", v)
	}
	b.Resume()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if v, err := c.reply(); v != "PONG" {
		t.Fatalf("after Resume: %v, %v", v, err)
	}
}

func TestProxy(t *testing.T) {
	link := Proxy(t, URL(t, "redis"))
	c := redisAt(t, link.URL())
	ping := func(c *redisConn, d time.Duration) error {
		c.SetDeadline(time.Now().Add(d))
		_, err := c.do("PING")
		return err
	}
	if err := ping(c, 10*time.Second); err != nil {
		t.Fatal(err)
	}

	link.Stall(true)
	if ping(c, 50*time.Millisecond) == nil {
		t.Fatal("a stalled link lets bytes pass")
	}
	link.Stall(false)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if v, err := c.reply(); v != "PONG" {
		t.Fatalf("after the stall: %v, %v", v, err)
	}

	link.Cut()
	if ping(c, 10*time.Second) == nil {
		t.Fatal("a cut connection works")
	}
	if err := ping(redisAt(t, link.URL()), 10*time.Second); err != nil {
		t.Fatalf("a new connection after the cut: %v", err)
	}

	link.Refuse(true)
	if _, err := dialRedis(t.Context(), link.URL()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Fatalf("a refusing link: %v", err)
	}
	link.Refuse(false)
	if err := ping(redisAt(t, link.URL()), 10*time.Second); err != nil {
		t.Fatalf("a link that refuses no more: %v", err)
	}
}

// No process of a broker is left when its test process crashes.
func TestCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: brokers are left out")
	}
	for _, how := range []string{"exit", "kill"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), "TESTBROKER_CHILD="+how)
			child.Stderr = os.Stderr
			out, err := child.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			in, err := child.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			if !lines.Scan() {
				t.Fatal("the child printed nothing")
			}
			var pids []int
			if err := json.Unmarshal(lines.Bytes(), &pids); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
			// RabbitMQ comes with a port mapper.
			if len(pids) != len(schemes)+1 {
				t.Fatalf("%d processes were started", len(pids))
			}
			for _, pid := range pids {
				if !alive(pid) {
					t.Fatalf("process %d was not there to begin with", pid)
				}
			}
			if how == "kill" {
				err = child.Process.Kill()
			} else {
				_, err = in.Write([]byte{'\n'})
			}
			if err != nil {
				t.Fatal(err)
			}
			_ = child.Wait() // it fails, by design
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				left := 0
				for _, pid := range pids {
					if alive(pid) {
						left++
					}
				}
				if left == 0 {
					return
				}
				if time.Now().After(end) {
					t.Fatalf("%d of the processes %v outlive the crash", left, pids)
				}
			}
		})
	}
}

// crash is the child of TestCrash: it starts private brokers, prints their
// process ids and ends without cleaning up, or waits to be killed.
func crash() {
	var pids []int
	for _, k := range kinds {
		s, err := startServer(k, Setup{}, nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		for _, p := range s.processes {
			pids = append(pids, p.pid())
		}
	}
	b, _ := json.Marshal(pids)
	fmt.Printf("%s\n", b)
	_, _ = os.Stdin.Read(make([]byte, 1)) // the parent has looked at them
	os.Exit(3)
}

// alive reports whether the process runs; a zombie does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func natsAt(t *testing.T, base string) *natsConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := dialNATS(ctx, base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func addStream(t *testing.T, c *natsConn, name string) {
	t.Helper()
	subject := strings.ToLower(name) + ".*"
	if err := c.request("$JS.API.STREAM.CREATE."+name, map[string]any{"name": name, "subjects": []string{subject}}, nil); err != nil {
		t.Fatal(err)
	}
}

func redisAt(t *testing.T, base string) *redisConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := dialRedis(ctx, base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func redisDo(t *testing.T, base string, args ...string) any {
	t.Helper()
	v, err := redisAt(t, base).do(args...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
