package host

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs fn on an OS thread that is thrown away afterwards, so that fn
// may move it into other namespaces and need not move it back.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread is never thrown away, and it is what /proc/self
			// shows: while we hold it, another goroutine gets another thread.
			done <- onThread(fn)
			runtime.UnlockOSThread()
			return
		}
		done <- fn() // not unlocked: the runtime ends the thread
	}()
	return <-done
}

// space is the set of namespaces of a node, held by open files.
type space struct {
	net, mnt, uts, ipc, pid *os.File
	group                   *os.File // cgroup directory that its processes start in
}

// open takes the namespaces that dir, a /proc/PID/ns or the like, shows now;
// pid is the name of the pid namespace there.
func (s *space) open(dir *os.File, pid string) error {
	fields := map[string]**os.File{"net": &s.net, "mnt": &s.mnt, "uts": &s.uts, "ipc": &s.ipc, pid: &s.pid}
	for name, field := range fields {
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening the %s namespace: %w", name, err)
		}
		*field = os.NewFile(uintptr(fd), name)
	}
	return nil
}

func (s *space) close() {
	for _, f := range []*os.File{s.net, s.mnt, s.uts, s.ipc, s.pid} {
		if f != nil {
			f.Close()
		}
	}
}

func (s *space) netPath() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.net.Fd())
}

func (s *space) doNet(fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(s.net.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering a network namespace: %w", err)
		}
		return fn()
	})
}

// do runs fn inside all namespaces; processes that fn starts are inside the
// pid namespace too.
func (s *space) do(fn func() error) error {
	return onThread(func() error {
		if err := s.enter(); err != nil {
			return err
		}
		return fn()
	})
}

// enter moves the calling thread into all namespaces for good.
func (s *space) enter() error {
	// A mount namespace can be entered only by a task that shares its root and
	// working directory with no other.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("entering a host: %w", err)
	}
	for _, f := range []*os.File{s.net, s.uts, s.ipc, s.pid, s.mnt} {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return fmt.Errorf("entering a host: %w", err)
		}
	}
	return nil
}
