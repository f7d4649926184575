package chaos

import (
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// clients are the client processes of a run. Safe for concurrent use.
type clients struct {
	dir, url string
	liar     bool

	mu      sync.Mutex
	running map[string]*process // by the name without the number of its life
	lives   map[string]int
	ends    map[string]time.Time // of those that were killed, by the full name; before the kill
	deaths  []string             // of those that ended by themselves
}

type process struct {
	name string
	cmd  *exec.Cmd
	in   io.Closer
	done chan struct{}
	told bool // to end
}

func newClients(dir, url string, liar bool) *clients {
	return &clients{dir: dir, url: url, liar: liar, running: map[string]*process{}, lives: map[string]int{}, ends: map[string]time.Time{}}
}

func (c *clients) start(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c.lives[name]++
	p := &process{name: fmt.Sprintf("%s.%d", name, c.lives[name]), done: make(chan struct{})}
	log, err := os.Create(filepath.Join(c.dir, p.name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd = exec.Command(self)
	p.cmd.Env = append(os.Environ(), nameVariable+"="+p.name, dirVariable+"="+c.dir, urlVariable+"="+c.url)
	if c.liar {
		p.cmd.Env = append(p.cmd.Env, liarVariable+"=1")
	}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	c.running[name] = p
	go func() {
		err := p.cmd.Wait()
		c.mu.Lock()
		if !p.told || err != nil && c.ends[p.name].IsZero() {
			c.deaths = append(c.deaths, fmt.Sprintf("the client %s ended by itself: %v", p.name, err))
		}
		c.mu.Unlock()
		close(p.done)
	}()
	return nil
}

// kill is kill -9.
func (c *clients) kill(name string) {
	c.mu.Lock()
	p := c.running[name]
	p.told = true
	c.ends[p.name] = time.Now()
	c.mu.Unlock()
	_ = p.cmd.Process.Kill() // it may have ended by itself, which is noted
	<-p.done
}

// stop kills those that still run.
func (c *clients) stop() {
	c.mu.Lock()
	running := slices.Collect(maps.Values(c.running))
	c.mu.Unlock()
	for _, p := range running {
		_ = p.cmd.Process.Kill() // most have ended
		<-p.done
	}
}

// end ends clients in order.
func (c *clients) end(list ...string) {
	var ending []*process
	c.mu.Lock()
	for _, name := range list {
		if p := c.running[name]; p != nil {
			p.told = true
			p.in.Close()
			ending = append(ending, p)
		}
	}
	c.mu.Unlock()
	late := time.After(2 * patience)
	for _, p := range ending {
		select {
		case <-p.done:
		case <-late:
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
}

// names are the full names of those that run.
func (c *clients) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for _, p := range c.running {
		select {
		case <-p.done:
		default:
			names = append(names, p.name)
		}
	}
	return names
}
