package config_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/polymq/polymq/config"
)

// secret is what no error may show.
const secret = "s3cr#t;p%40ss"

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestURL(t *testing.T) {
	const url = "nats://user:s3cr;t%40@h1:4222,h2/?vhost=a&durability=x"
	for name, text := range map[string]string{
		"plain.ini":    "[polymq]\nurl = " + url + "\n",
		"others.ini":   "; of the program\nname = app\n[other]\nurl = http://else\n\n[polymq]\n# the broker\nurl=" + url,
		"quoted.ini":   "[polymq]\nurl = \"" + url + "\"\n",
		"plain.yaml":   "polymq:\n  url: " + url + "\n",
		"others.yml":   "name: app\nother: {url: http://else}\npolymq:\n  url: '" + url + "' # the broker\n",
		"anchored.yml": "here: &u " + url + "\npolymq: {url: *u}\n",
	} {
		t.Run(name, func(t *testing.T) {
			file := write(t, name, text)
			t.Setenv("POLYMQ_URL", "")
			if got, err := config.URL(file); err != nil || got != url {
				t.Errorf("got %q, %v", got, err)
			}
			t.Setenv("POLYMQ_URL", "mem://env")
			if got, err := config.URL(file); err != nil || got != "mem://env" {
				t.Errorf("with the environment: got %q, %v", got, err)
			}
		})
	}
}

func TestURLWithoutFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "none.ini")
	t.Setenv("POLYMQ_URL", "mem://env")
	if got, err := config.URL(file); err != nil || got != "mem://env" {
		t.Errorf("got %q, %v", got, err)
	}
	t.Setenv("POLYMQ_URL", "")
	_, err := config.URL(file)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "POLYMQ_URL") || !strings.Contains(err.Error(), "none.ini") {
		t.Errorf("got %v", err)
	}
}

func TestURLRefuses(t *testing.T) {
	url := "amqp://user:" + secret + "@host/"
	for _, tc := range []struct{ name, text, want string }{
		{"a.ini", "[polymq]\nurl = mem://\nuser = " + secret, `a.ini:3: invalid: unknown key "user": the section polymq has url`},
		{"b.ini", "[polymq]\nurl = mem://a\nurl = mem://" + secret, `b.ini:2: invalid: key "url" is given twice`},
		{"c.ini", "[polmq]\nurl = " + url, "c.ini: invalid: no key url in the section polymq"},
		{"d.ini", "[polymq]\nurl " + secret, "d.ini:2: invalid: not an INI file"},
		{"e.ini", "[polymq]\n\nurl = " + url, "e.ini:3: url: invalid: the URL has a #"},
		{"f.ini", "[polymq]\nurl = " + secret, "f.ini:2: url: invalid: the URL has no scheme"},
		{"a.yaml", "polymq:\n  url: mem://\n  password: " + secret, `a.yaml:3: invalid: unknown key "password": the section polymq has url`},
		{"b.yaml", "polymq:\n  url: mem://a\n  url: mem://" + secret, `b.yaml:3: invalid: key "url" is given twice`},
		{"c.yaml", "polymq: " + secret, "c.yaml:1: invalid: want one mapping"},
		{"d.yaml", "polymq:\n  url: *" + secret, "invalid: not well-formed YAML"},
		{"e.yaml", "polymq:\n  url: @" + secret, "e.yaml:2: invalid: not well-formed YAML"},
		{"f.yaml", "polymq:\n  url: [" + secret + "]", "f.yaml: invalid: no key url"},
		{"g.yaml", "- " + secret, "g.yaml:1: invalid: want a mapping"},
		{"h.yaml", "", "h.yaml: invalid: no key url"},
		{"i.yaml", "polymq:\n  url: " + url, "i.yaml:2: url: invalid: the URL has a #"},
		{"j.yaml", "polymq: &p\n  url: mem://" + secret + "\npolymq: *p", "j.yaml:3: invalid: want one mapping"},
		{"k.toml", "", `invalid: the name ends in ".toml": want .ini, .yaml or .yml`},
	} {
		for _, env := range []string{"", "mem://env"} {
			t.Setenv("POLYMQ_URL", env)
			_, err := config.URL(write(t, tc.name, tc.text))
			if err == nil || !strings.Contains(err.Error(), tc.want) || !errors.Is(err, config.ErrInvalid) {
				t.Errorf("%s: got  %v\n\twant %s", tc.name, err, tc.want)
			} else if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), secret[:5]) {
				t.Errorf("%s shows the secret: %v", tc.name, err)
			}
		}
	}
}
