package driver_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
)

func TestParseURL(t *testing.T) {
	for _, c := range []struct {
		in             string
		scheme         string
		user, password string
		hasUser        bool
		addrs          string
		path           string
		hasPath        bool
		text           string
	}{
		{in: "mem://", scheme: "mem", addrs: "localhost:1", text: "mem://"},
		{in: "AMQP://h", scheme: "amqp", addrs: "h:1", text: "amqp://h"},
		{in: "amqp://h/", scheme: "amqp", addrs: "h:1", hasPath: true, text: "amqp://h/"},
		{in: "amqp://h/%2f", scheme: "amqp", addrs: "h:1", path: "/", hasPath: true, text: "amqp://h/%2F"},
		{in: "amqp://a,b:2,[::1],[::2]:3", scheme: "amqp", addrs: "a:1 b:2 [::1]:1 [::2]:3", text: "amqp://a,b:2,[::1],[::2]:3"},
		{in: "nats://u:p%40ss:w@h", scheme: "nats", user: "u", password: "p@ss:w", hasUser: true, addrs: "h:1", text: "nats://u:xxxxx@h"},
		{in: "nats://tok%3Aen@h", scheme: "nats", user: "tok:en", hasUser: true, addrs: "h:1", text: "nats://xxxxx@h"},
		{in: "nats://u@v:p@h", scheme: "nats", user: "u@v", password: "p", hasUser: true, addrs: "h:1", text: "nats://u%40v:xxxxx@h"},
		{in: "redis://:p@h/3?a=b", scheme: "redis", password: "p", hasUser: true, addrs: "h:1", path: "3", hasPath: true, text: "redis://:xxxxx@h/3"},
		{in: "redis://@h", scheme: "redis", hasUser: true, addrs: "h:1", text: "redis://@h"},
		{in: "nats://:5,", scheme: "nats", addrs: ":5 localhost:1", text: "nats://:5,"},
	} {
		u, err := driver.ParseURL(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if u.Scheme != c.scheme || u.User != c.user || u.Password != c.password || u.HasUser != c.hasUser || u.Path != c.path || u.HasPath != c.hasPath {
			t.Errorf("%s: %+v", c.in, u)
		}
		if got := strings.Join(u.Addrs(1), " "); got != c.addrs {
			t.Errorf("%s: addresses %s, want %s", c.in, got, c.addrs)
		}
		for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
			if shown := fmt.Sprintf(format+" "+format, u, *u); shown != c.text+" "+c.text {
				t.Errorf("%s: text %s, want %s twice", c.in, shown, c.text)
			}
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	for in, text := range map[string]string{
		"":                          "no scheme",
		"localhost:5672":            "no scheme",
		"://h":                      "no scheme",
		"amqp://u:s#cret@h":         "%23",
		"amqp://h?a=b#c":            "%23",
		"amqp://h/%zz":              "path",
		"amqp://u:s%zzcret@h":       "password",
		"amqp://u:secret@h?a=%zz":   "options",
		"amqp://u:1?secret@h/v":     "%3F",
		"amqp://u:1/secret@h/v":     "%2F",
		"amqp://u:secret@h?a;b":     "options",
		"amqp://h?a=1&a=2":          "2 times",
		"amqp://h:port":             "port",
		"amqp://h:0":                "port",
		"amqp://h:65536":            "port",
		"amqp://h:":                 "port",
		"amqp://a:b:c":              "host",
		"amqp://[::1":               "host",
		"amqp://a b":                "white space",
		"amqp://u:secret/with@h:1/": "%2F", // a slash in a password
	} {
		u, err := driver.ParseURL(in)
		if err == nil {
			t.Errorf("%s: no error, %+v", in, u)
			continue
		}
		if !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "cret") {
			t.Errorf("%s: %v, want something about %s", in, err, text)
		}
	}
}

func TestURLOptions(t *testing.T) {
	parse := func(query string) *driver.URL {
		u, err := driver.ParseURL("amqp://u:secret@h/?" + query)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	take := func(u *driver.URL) (string, string, int, time.Duration) {
		return u.Text("vhost", "/"), u.OneOf("durability", "disk", "memory"), u.Int("replicas", 1, 1, 5), u.Duration("heartbeat", 10*time.Second, time.Second, time.Minute)
	}
	u := parse("")
	if text, one, n, d := take(u); text != "/" || one != "disk" || n != 1 || d != 10*time.Second || u.Rest() != nil {
		t.Error("defaults", text, one, n, d, u.Rest())
	}
	u = parse("vhost=a%2Fb&durability=memory&replicas=3&heartbeat=1m")
	if text, one, n, d := take(u); text != "a/b" || one != "memory" || n != 3 || d != time.Minute || u.Rest() != nil {
		t.Error("given", text, one, n, d, u.Rest())
	}
	for query, want := range map[string][]string{
		"durability=paper":         {"durability", "disk, memory"},
		"replicas=6":               {"replicas", "from 1 to 5"},
		"replicas=x":               {"replicas"},
		"heartbeat=1h":             {"heartbeat", "1s", "1m0s"},
		"heartbeat=5":              {"heartbeat"},
		"colour=blue":              {`unknown URL option "colour"`, "durability, heartbeat, replicas, vhost"},
		"Replicas=1&replicas=9&x=": {"replicas", `"Replicas"`, `"x"`},
	} {
		u := parse(query)
		take(u)
		err := u.Rest()
		if err == nil {
			t.Errorf("%s: no error", query)
			continue
		}
		for _, text := range want {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want something about %s", query, err, text)
			}
		}
		if again := u.Rest(); again.Error() != err.Error() {
			t.Errorf("%s: the second time %v", query, again)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"mem://", "amqp://u:p@h1:1,[::1]:2/v?x=1m&y=2", "nats://tok%41@h", "redis://:@/", "a://@@//??", "amqp://[::1", "a://h:1:2", "a://%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := driver.ParseURL(s)
		if err != nil {
			return
		}
		if len(u.Hosts) == 0 || len(u.Addrs(1)) != len(u.Hosts) || slices.Contains(u.Addrs(1), "") {
			t.Errorf("hosts %q, addresses %q", u.Hosts, u.Addrs(1))
		}
		// What is shown is a URL of the same parts, without the password.
		shown, err := driver.ParseURL(u.String())
		if err != nil {
			t.Fatalf("%q is shown as %q: %v", s, u, err)
		}
		if shown.Scheme != u.Scheme || u.Password != "" && shown.User != u.User || !slices.Equal(shown.Hosts, u.Hosts) || shown.Path != u.Path || shown.HasPath != u.HasPath || shown.HasUser != u.HasUser {
			t.Errorf("%q is shown as %q", s, u)
		}
		if u.Password != "" && shown.Password != "xxxxx" || u.Password == "" && u.User != "" && shown.User != "xxxxx" {
			t.Errorf("the password or token of %q is shown in %q", s, u)
		}
		_ = u.Int("x", 1, 1, 2)
		_ = u.Duration("y", time.Second, time.Second, time.Minute)
		_ = u.Rest()
	})
}
