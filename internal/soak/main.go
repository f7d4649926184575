// Soak runs a moderate, steady load on every backend at once, for half an hour
// by default, and says whether memory and goroutines stay what they were:
//
//	go run ./internal/soak -minutes 30
//
// Each backend has a process of its own, so that its memory can be told from the
// others'. It publishes, consumes, retries, delays and dead-letters, and opens and
// closes connections and subscribers all the while. The measurements go to
// docs/soak.csv, and plotted to docs/soak.svg. It exits with 1 where something grew.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/polymq/polymq/internal/testbroker"
)

// backends are in the order in which they are shown; each with the program that
// its broker's memory is read from.
var backends = []struct{ scheme, program string }{
	{"amqp", "beam.smp"},
	{"nats", "nats-server"},
	{"redis", "redis-server"},
	{"mem", ""},
}

type settings struct {
	minutes float64
	rate    int
	every   time.Duration
	out     string
	commit  string
}

func main() {
	var s settings
	flag.Float64Var(&s.minutes, "minutes", 30, "how long it runs")
	flag.IntVar(&s.rate, "rate", 200, "messages a second, on each backend")
	flag.DurationVar(&s.every, "every", 5*time.Second, "how often it measures")
	flag.StringVar(&s.out, "out", "docs", "the folder for soak.csv and soak.svg")
	flag.StringVar(&s.commit, "commit", "", "what is measured, for the title")
	flag.Parse()
	if url := os.Getenv(urlVariable); url != "" {
		if err := work(url, s); err != nil {
			fmt.Fprintln(os.Stderr, "soak:", err)
			os.Exit(1)
		}
		return
	}
	steady, err := run(s)
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
	}
	if err != nil || !steady {
		os.Exit(1)
	}
}

func run(s settings) (steady bool, err error) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	env, stop, err := testbroker.Run()
	if err != nil {
		return false, err
	}
	defer stop()
	urls := map[string]string{"mem": "mem://soak"}
	for _, v := range env {
		name, url, _ := strings.Cut(v, "=")
		for _, b := range backends {
			if strings.Contains(name, "_"+strings.ToUpper(b.scheme)+"_") {
				urls[b.scheme] = url
			}
		}
	}
	begin := time.Now()
	all := make([]series, len(backends))
	errs := make([]error, len(backends))
	var wg sync.WaitGroup
	for i, b := range backends {
		all[i].backend = b.scheme
		wg.Go(func() {
			err := follow(ctx, urls[b.scheme], s, func(m sample) {
				m.At = time.Since(begin).Seconds()
				m.Broker = broker(b.program)
				all[i].samples = append(all[i].samples, m)
			})
			if err != nil {
				errs[i] = fmt.Errorf("%s: %w", b.scheme, err)
				cancel() // the others are to be read beside it, or not at all
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return false, err
	}
	head := fmt.Sprintf("%s, commit %s, %g minutes, %d messages a second on each backend", begin.UTC().Format(time.DateOnly), cmp.Or(s.commit, "unknown"), s.minutes, s.rate)
	if err := write(filepath.Join(s.out, "soak.csv"), table(head, all)); err != nil {
		return false, err
	}
	if err := write(filepath.Join(s.out, "soak.svg"), plot(head, all)); err != nil {
		return false, err
	}
	steady = true
	for _, one := range all {
		findings := judge(one, s.rate)
		fmt.Println(one.summary())
		for _, f := range findings {
			steady = false
			fmt.Printf("%s: NOT STEADY: %s\n", one.backend, f)
		}
	}
	if steady {
		fmt.Println("soak: steady")
	}
	return steady, nil
}

// follow runs the process of one backend and hands on what it measures.
func follow(ctx context.Context, url string, s settings, measured func(sample)) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-minutes", fmt.Sprint(s.minutes), "-rate", fmt.Sprint(s.rate), "-every", s.every.String())
	cmd.Env = append(os.Environ(), urlVariable+"="+url) // not an argument, which others can read
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // its end ends the process, should this one die
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var m sample
		if err = json.Unmarshal(lines.Bytes(), &m); err != nil {
			break
		}
		measured(m)
	}
	return errors.Join(err, cmd.Wait())
}

func write(name, text string) error { return os.WriteFile(name, []byte(text), 0o644) }
