package acceptance_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/drivers/amqp"
	"github.com/polymq/polymq/drivers/nats"
	"github.com/polymq/polymq/drivers/redis"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// shown collects what a program gets to see, in which no secret may be. Safe for
// concurrent use.
type shown struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *shown) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// see shows values in every way, an error with all that it wraps.
func (s *shown) see(values ...any) {
	for _, v := range values {
		fmt.Fprintf(s, "%v\n%+v\n%#v\n%q\n", v, v, v, v)
		if err, ok := v.(error); ok {
			for err := errors.Unwrap(err); err != nil; err = errors.Unwrap(err) {
				fmt.Fprintf(s, "%v\n%+v\n%#v\n", err, err, err)
			}
		}
	}
}

func (s *shown) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// watching shows what metrics and traces are made of.
type watching struct{ s *shown }

func (w watching) Observe(info polymq.ConnInfo) *polymq.Hooks {
	w.s.see(info)
	return &polymq.Hooks{State: func(state polymq.State, err error) { w.s.see(state, err) }}
}

// TestSecretsStaySecret: whatever fails, no error, no log line and no value that
// is printed shows a password, a token, a seed or the value of an option.
func TestSecretsStaySecret(t *testing.T) {
	drivers := map[string]driver.Driver{"amqp": amqp.Driver{}, "nats": nats.Driver{}, "redis": redis.Driver{}}
	for scheme, d := range drivers {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			var s shown
			log := slog.New(slog.NewTextHandler(&s, &slog.HandlerOptions{Level: slog.LevelDebug}))
			b := testbroker.StartSecured(t, scheme)
			u, err := url.Parse(b.URL())
			if err != nil {
				t.Fatal(err)
			}
			password, _ := u.User.Password()
			const wrong = "Wr0ngSecret"
			secrets := []string{password, wrong}
			with := func(user *url.Userinfo, host, query string) string {
				other := *u
				other.User, other.RawQuery = user, query
				if host != "" {
					other.Host = host
				}
				return other.String()
			}
			seed := filepath.Join(t.TempDir(), "seed")
			if err := os.WriteFile(seed, []byte("SUA"+wrong), 0o600); err != nil {
				t.Fatal(err)
			}
			whole := b.SecureURL() + "&cert=" + b.Cert + "&key=" + b.Key
			const dead = "127.0.0.1:1"
			for _, url := range []string{
				with(url.UserPassword(u.User.Username(), wrong), "", ""),
				with(url.UserPassword("nobody", wrong), "", ""),
				with(url.UserPassword("", wrong), "", ""),
				with(url.User(wrong), "", ""),
				with(u.User, dead, ""),
				with(u.User, "no.such.host.invalid:1", ""),
				with(u.User, dead, "password="+wrong),
				with(u.User, dead, "lease="+wrong+"&heartbeat="+wrong+"&timeout="+wrong+"&replicas="+wrong+"&durability="+wrong+"&verify="+wrong),
				with(u.User, dead, "creds="+seed), with(u.User, dead, "nkey="+seed), with(nil, dead, "creds="+seed), with(nil, dead, "nkey="+seed),
				with(u.User, dead, "management=http://u:"+wrong+"@"+dead), with(u.User, dead, "management=ht:/"+wrong),
				with(u.User, dead, "sentinel-password="+wrong+"&master=m"),
				strings.Replace(with(u.User, dead, "sentinel-password="+wrong+"&master=m"), scheme, scheme+"+sentinel", 1),
				strings.Replace(with(u.User, "", ""), scheme+"://", "unknown"+scheme+"://", 1),
				scheme + "://u:1/" + wrong + "@" + dead, scheme + "://u:1?" + wrong + "@" + dead, scheme + "://u:%zz" + wrong + "@" + dead, scheme + "://u:" + wrong + "#@" + dead,
				b.SecureURL() + "&cert=" + b.ForeignCert + "&key=" + b.ForeignKey,
				strings.Replace(whole, "ca="+b.CA, "ca="+b.ForeignCA, 1),
				strings.Replace(whole, "ca="+b.CA, "ca="+seed, 1), strings.Replace(whole, "key="+b.Key, "key="+seed, 1),
				strings.Replace(whole, "@localhost:", "@127.0.0.1:", 1),
			} {
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				conn, err := polymq.Open(ctx, url, &polymq.Options{Logger: log, OnState: func(_ polymq.State, err error) { s.see(err) }, Observers: []polymq.Observer{watching{&s}}})
				cancel()
				if err == nil {
					_ = conn.Close(t.Context())
					s.see(conn)
					continue
				}
				s.see(err)
			}

			// What a program holds, and a connection that is lost, refused and back.
			link := testbroker.Proxy(t, b.URL())
			parsed, err := driver.ParseURL(link.URL())
			if err != nil {
				t.Fatal(err)
			}
			s.see(parsed, *parsed)
			dc, err := d.Open(within(t, 30*time.Second), parsed, driver.Config{Logger: log, OnState: func(_ driver.State, err error) { s.see(err) }})
			if err != nil {
				t.Fatal(err)
			}
			conn := polymq.NewConn(dc, &polymq.Options{Logger: log})
			t.Cleanup(func() { conn.Close(context.Background()) })
			declare(t, conn, routing.Topology{Queues: []routing.Queue{{Name: "q"}}})
			p, sub := publisher(t, conn, ""), subscriber(t, conn, "q", 1)
			s.see(conn.Features(), conn.Declare(within(t, 10*time.Second), routing.Topology{Queues: []routing.Queue{{Name: "q", MaxAttempts: 3, DeadLetterExchange: "none"}}}))
			for range 2 {
				link.Refuse(true)
				link.Cut()
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				s.see(p.Publish(ctx, &polymq.Message{Key: "q"}), conn.Health(ctx))
				_, err := conn.Topology(ctx)
				s.see(err)
				cancel()
				link.Refuse(false)
			}
			if err := p.Publish(within(t, 30*time.Second), &polymq.Message{Key: "q"}); err != nil {
				t.Error(err)
			}
			if scheme == "amqp" {
				for _, management := range []string{"http://u:" + wrong + "@" + dead, "http://u:" + wrong + "@" + strings.TrimPrefix(u.Query().Get("management"), "http://"), "https://" + strings.TrimPrefix(u.Query().Get("management"), "http://")} {
					conn := open(t, with(u.User, "", "management="+url.QueryEscape(management)))
					_, err := conn.Topology(within(t, 10*time.Second))
					if err == nil {
						t.Errorf("management: it answered")
					}
					s.see(err)
				}
			}
			s.see(conn.Close(within(t, 10*time.Second)), p.Publish(t.Context(), &polymq.Message{Key: "q"}))
			s.see(d, conn, p, sub)

			text := s.String()
			for _, secret := range secrets {
				for line := range strings.Lines(text) {
					if strings.Contains(line, secret) {
						t.Errorf("%s is shown: %s", secret, line)
						break
					}
				}
			}
			if len(text) < 10000 || !strings.Contains(text, "permission denied") {
				t.Errorf("too little was seen: %s", text)
			}
		})
	}
}
