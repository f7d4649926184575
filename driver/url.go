package driver

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// URL is a broker's address in the form
//
//	scheme://user:password@host1:port1,host2:port2/path?option=value
//
// It is net/url's form but for the list of hosts. User, password and path are
// percent-decoded. A driver takes the options it knows with the typed getters
// and ends with Rest, which refuses the others. A URL is not safe for
// concurrent use.
type URL struct {
	Scheme   string   // in lower case
	User     string   // a user's name or, without a password, perhaps a token
	Password string   // never shown
	HasUser  bool     // there was an @, so User and Password are meant even when empty
	Hosts    []string // at least one entry; host or host:port or [v6]:port; "" where there was none
	Path     string   // without the leading slash; "" where there was none
	HasPath  bool     // there was a slash after the hosts

	options url.Values
	taken   map[string]bool
	errs    []error
}

// ParseURL takes a URL apart. Its errors never hold the password.
func ParseURL(s string) (*URL, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || scheme == "" {
		return nil, errors.New("the URL has no scheme: want scheme://host:port/path?option=value")
	}
	u := &URL{Scheme: strings.ToLower(scheme), taken: map[string]bool{}}
	rest, query, _ := strings.Cut(rest, "?")
	if strings.Contains(query, "#") || strings.Contains(rest, "#") {
		return nil, errors.New("the URL has a #: write %23 in a user name, password or path")
	}
	var err error
	if u.options, err = url.ParseQuery(query); err != nil {
		return nil, errors.New("the URL's options are not well formed: want ?option=value&option=value, percent-encoded")
	}
	for name, values := range u.options {
		if strings.ContainsAny(name, "@:/") {
			return nil, errors.New("the URL has no option of such a name: write %3F for a ? in a user name, password or path")
		}
		if len(values) > 1 {
			return nil, fmt.Errorf("URL option %q is given %d times", name, len(values))
		}
	}
	hosts, path, hasPath := strings.Cut(rest, "/")
	if u.HasPath = hasPath; hasPath {
		if u.Path, err = url.PathUnescape(path); err != nil {
			return nil, errors.New("the URL's path is not well percent-encoded")
		}
	}
	if i := strings.LastIndexByte(hosts, '@'); i >= 0 {
		user, password, _ := strings.Cut(hosts[:i], ":")
		hosts, u.HasUser = hosts[i+1:], true
		var err1, err2 error
		u.User, err1 = url.PathUnescape(user)
		u.Password, err2 = url.PathUnescape(password)
		if err1 != nil || err2 != nil {
			return nil, errors.New("the URL's user name or password is not well percent-encoded")
		}
	} else if strings.Contains(path, "@") { // shown, it would be the rest of a password
		return nil, errors.New("the URL has a @ after a slash: write %2F for a slash in a user name or password, or %40 for a @ in a path")
	}
	for host := range strings.SplitSeq(hosts, ",") {
		if err := checkHost(host); err != nil {
			return nil, err
		}
		u.Hosts = append(u.Hosts, host)
	}
	return u, nil
}

func checkHost(host string) error {
	name, port := host, ""
	if strings.Contains(host, ":") && !strings.HasSuffix(host, "]") {
		var err error
		if name, port, err = net.SplitHostPort(host); err != nil {
			return errors.New("a host of the URL is not well formed: want host:port or [v6]:port, and percent-encode @ : / ? # in a user name or password")
		}
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return errors.New("a port of the URL is not a number from 1 to 65535")
		}
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return errors.New("a host of the URL contains white space or a control character")
	}
	return nil
}

// Addrs is Hosts with the default port and, where there was no host,
// localhost put in.
func (u *URL) Addrs(defaultPort int) []string {
	addrs := make([]string, len(u.Hosts))
	for i, h := range u.Hosts {
		switch {
		case h == "":
			h = "localhost"
		case strings.HasPrefix(h, "[") && strings.HasSuffix(h, "]"):
			h = h[1 : len(h)-1]
		case strings.Contains(h, ":"):
			addrs[i] = h
			continue
		}
		addrs[i] = net.JoinHostPort(h, strconv.Itoa(defaultPort))
	}
	return addrs
}

// String is the URL without its secrets, fit for errors and logs: the password,
// a user without one, which may be a token, and the values of options.
func (u URL) String() string {
	var b strings.Builder
	b.WriteString(u.Scheme + "://")
	switch {
	case u.Password != "":
		b.WriteString(url.User(u.User).String() + ":xxxxx@")
	case u.User != "":
		b.WriteString("xxxxx@")
	case u.HasUser:
		b.WriteByte('@')
	}
	b.WriteString(strings.Join(u.Hosts, ","))
	if u.HasPath {
		b.WriteString("/" + strings.ReplaceAll(url.PathEscape(u.Path), "@", "%40"))
	}
	return b.String()
}

// GoString is String.
func (u URL) GoString() string { return u.String() }

// Text takes an option; def where it is not given.
func (u *URL) Text(name, def string) string {
	u.taken[name] = true
	if !u.options.Has(name) {
		return def
	}
	return u.options.Get(name)
}

// OneOf takes an option that has a fixed set of values, the first being the
// default.
func (u *URL) OneOf(name string, values ...string) string {
	v := u.Text(name, values[0])
	if !slices.Contains(values, v) {
		u.errs = append(u.errs, fmt.Errorf("URL option %s must be one of %s", name, strings.Join(values, ", ")))
		return values[0]
	}
	return v
}

// Int takes an option that is a number between lo and hi.
func (u *URL) Int(name string, def, lo, hi int) int {
	v := u.Text(name, strconv.Itoa(def))
	n, err := strconv.Atoi(v)
	if err != nil || n < lo || n > hi {
		u.errs = append(u.errs, fmt.Errorf("URL option %s must be a number from %d to %d", name, lo, hi))
		return def
	}
	return n
}

// Duration takes an option that is a duration in Go's form (30s, 1m30s)
// between lo and hi.
func (u *URL) Duration(name string, def, lo, hi time.Duration) time.Duration {
	v := u.Text(name, def.String())
	d, err := time.ParseDuration(v)
	if err != nil || d < lo || d > hi {
		u.errs = append(u.errs, fmt.Errorf("URL option %s must be a duration from %v to %v, like %v", name, lo, hi, def))
		return def
	}
	return d
}

// Rest is the error for options that were malformed or that nobody took; nil
// when there are none.
func (u *URL) Rest() error {
	errs := u.errs
	var known, unknown []string
	for name := range u.taken {
		known = append(known, name)
	}
	for name := range u.options {
		if !u.taken[name] {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(known)
	slices.Sort(unknown)
	for _, name := range unknown {
		errs = append(errs, fmt.Errorf("unknown URL option %q: %s takes %s", name, u.Scheme, strings.Join(known, ", ")))
	}
	return errors.Join(errs...)
}
