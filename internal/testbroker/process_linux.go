package testbroker

import (
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// A process is a child that cannot outlive this process.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// startProcess starts cmd in a process group of its own, to be killed by the
// kernel when this process ends. Pdeathsig fires when the thread that forked
// ends, so the thread is kept for as long as the child lives. It survives exec,
// but not a fork: a script that does not exec its program would leave it behind.
func startProcess(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is told by ended and by its log
		}
		close(p.done)
	}()
	return p, <-started
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill kills the process group, and returns when the process is reaped.
func (p *process) kill() {
	if !p.ended() {
		p.signal(syscall.SIGKILL)
	}
	<-p.done
}

// stop asks the process to end, and kills it when it has not after d.
func (p *process) stop(d time.Duration) {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(d):
		p.kill()
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }
func (p *process) pause()   { p.signal(syscall.SIGSTOP) }
func (p *process) resume()  { p.signal(syscall.SIGCONT) }

func (p *process) signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }
