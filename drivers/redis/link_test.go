package redis

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
)

// links lead to all servers of a cluster by proxies, though they tell of one
// another by their own addresses.
type links struct {
	t   testing.TB
	mu  sync.Mutex
	all map[string]*testbroker.Link // by the address it leads to
	do  func(*testbroker.Link)      // to those that are made later; nil: nothing

	ended bool // the test; a client may still be dialing
}

var linked struct {
	sync.Mutex
	all []*links
}

// newLinks returns a URL that openLinked takes.
func newLinks(t testing.TB, url string) (*links, string) {
	l := &links{t: t, all: map[string]*testbroker.Link{}}
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ended = true
	})
	linked.Lock()
	defer linked.Unlock()
	linked.all = append(linked.all, l)
	return l, "links" + strconv.Itoa(len(linked.all)-1) + " " + url
}

func openLinked(ctx context.Context, url string, opts *polymq.Options) (*polymq.Conn, error) {
	rest, ok := strings.CutPrefix(url, "links")
	if !ok {
		return polymq.Open(ctx, url, opts)
	}
	name, target, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(name)
	if err != nil {
		return nil, err
	}
	linked.Lock()
	l := linked.all[n]
	linked.Unlock()
	u, err := driver.ParseURL(target)
	if err != nil {
		return nil, err
	}
	cfg, err := parse(u)
	if err != nil {
		return nil, err
	}
	cfg.via = l.to
	s, err := open(ctx, cfg, nopLogger, func(driver.State, error) {})
	if err != nil {
		return nil, err
	}
	c, err := emulate.New(ctx, s, emulate.Config{})
	if err != nil {
		_ = s.Close(ctx)
		return nil, err
	}
	return polymq.NewConn(c, opts), nil
}

// to is the address of the proxy before a server.
func (l *links) to(addr string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	link := l.all[addr]
	if link == nil && l.ended {
		return addr
	}
	if link == nil {
		link = testbroker.Proxy(l.t, "redis://"+addr)
		l.all[addr] = link
		if l.do != nil {
			l.do(link)
		}
	}
	return strings.TrimPrefix(link.URL(), "redis://")
}

// each does something to all proxies, and last to those that are made later.
func (l *links) each(do func(*testbroker.Link), last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, link := range l.all {
		do(link)
	}
	if l.do = nil; last {
		l.do = do
	}
}
