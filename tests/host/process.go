package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cleanEnv is the environment of everything that runs inside: nothing of the
// caller's, so that no bus address or proxy leaks in. A program that was built
// with the race detector would sleep for a second as it ends.
func cleanEnv() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb", "GORACE=atexit_sleep_ms=50"}
}

// Process is a program that runs inside a node.
type Process struct {
	Name string

	cmd    *exec.Cmd
	output *os.File
	done   chan struct{}
	err    error // set before done is closed

	mu   sync.Mutex
	kept []byte // the output, once the file is closed
}

// startProcess starts cmd from the calling thread's namespaces. Output goes to
// a file in memory: no goroutine has to copy it, and nobody waits for a child
// of the program that keeps it open.
func startProcess(name string, cmd *exec.Cmd, group *os.File) (*Process, error) {
	fd, err := unix.MemfdCreate("output", unix.MFD_CLOEXEC) // a name has 249 bytes at most
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	output := os.NewFile(uintptr(fd), "output of "+name)
	cmd.Env = append(cleanEnv(), cmd.Env...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if err := cmd.Start(); err != nil {
		output.Close()
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p := &Process{Name: name, cmd: cmd, output: output, done: make(chan struct{})}
	go p.reap()
	return p, nil
}

func (p *Process) reap() {
	p.err = p.cmd.Wait()
	p.mu.Lock()
	p.kept = readAll(p.output)
	p.output.Close()
	p.mu.Unlock()
	close(p.done)
}

func readAll(f *os.File) []byte {
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	data := make([]byte, info.Size())
	n, _ := f.ReadAt(data, 0)
	return data[:n]
}

// PID returns the process's id as seen from outside of the host.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done returns a channel that is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the process is still running.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Log returns what the process wrote so far to its standard output and error.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept != nil || !p.Running() {
		return string(p.kept)
	}
	return string(readAll(p.output))
}

// Wait waits for the end of the process and returns how it ended, as
// exec.Cmd.Wait does.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s: %w", p.Name, ctx.Err())
	}
}

// Signal sends a signal to the process; one that has ended is no error.
func (p *Process) Signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending %s to %s: %w", sig, p.Name, err)
	}
	return nil
}

// stopTimeout is how long a daemon may take to end by itself. libvirtd waits 30 s for
// its own threads before it ends without them.
const stopTimeout = 45 * time.Second

// Stop ends the process with SIGTERM and waits for it. One that does not end in
// time is killed, and that is an error.
func (p *Process) Stop() error { return p.end(syscall.SIGTERM) }

// Kill ends the process with SIGKILL and waits for it.
func (p *Process) Kill() error { return p.end(syscall.SIGKILL) }

func (p *Process) end(sig syscall.Signal) error {
	if err := p.Signal(sig); err != nil {
		return err
	}
	limit := Patient(stopTimeout)
	select {
	case <-p.done:
		return nil
	case <-time.After(limit):
		_ = p.Signal(syscall.SIGKILL)
		<-p.done
		return fmt.Errorf("ending %s: still there %s after %s, so it was killed; its output:\n%s", p.Name, limit, sig, p.Log())
	}
}

// killGroup ends the process and what it started in its session.
func (p *Process) killGroup() {
	_ = unix.Kill(-p.PID(), unix.SIGKILL)
	<-p.done
}
