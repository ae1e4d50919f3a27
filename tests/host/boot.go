package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// guardScript waits for the end of the process that made the host, then ends
// what is left of the host and removes its cgroup. It runs outside of the
// host, so that it outlives it, and names nothing but that cgroup, so that it
// cannot meet a recycled pid.
const guardScript = `
trap '' INT TERM HUP QUIT
read -r _
echo 1 >"$1/cgroup.kill"
n=0
while [ -d "$1" ] && [ $n -lt 3000 ]; do
	find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.02
	n=$((n + 1))
done`

type guard struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func startGuard(leash *os.File, group *cgroup) (*guard, error) {
	cmd := exec.Command("/bin/sh", "-c", guardScript, "host-guard", group.path)
	cmd.Env = cleanEnv()
	cmd.Dir = "/"
	cmd.Stdin = leash
	// Its own session: an interrupt from the terminal is for the tests.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the host's guard: %w", err)
	}
	g := &guard{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(g.done)
	}()
	return g, nil
}

// bootScript finishes the host from inside: /proc is always that of the
// mounting process's own pid namespace, and only a process that is already in
// the host's cgroup can make that the root of a cgroup namespace. Global
// sysctls belong to the machine and become read-only, those below net are the
// host's.
const bootScript = `exec /usr/bin/unshare --cgroup /bin/sh -c '
mount -t proc -o nosuid,nodev,noexec proc /proc &&
mount --bind /proc/sys /proc/sys &&
mount --bind /proc/sys/net /proc/sys/net &&
mount -o remount,bind,ro,nosuid,nodev,noexec /proc/sys &&
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup || exit
echo up >&3
exec "$@" 3>&-' "$@"`

// boot starts pid 1 from the thread that built the tree, and waits until it is
// through with its part.
func (h *Host) boot(ctx context.Context, leash *os.File) error {
	ready, report, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := exec.Command("/bin/sh", append([]string{"-c", bootScript, "init", "init"}, h.cfg.Init...)...)
	if leash != nil {
		cmd.Stdin = leash
	}
	cmd.ExtraFiles = []*os.File{report}
	p, err := startProcess("pid 1", cmd, h.group.dir)
	report.Close()
	if err != nil {
		return err
	}
	h.init = p
	deadline := time.Now().Add(patience())
	if sooner, ok := ctx.Deadline(); ok && sooner.Before(deadline) {
		deadline = sooner
	}
	_ = ready.SetReadDeadline(deadline)
	line := make([]byte, 3)
	if _, err := io.ReadFull(ready, line); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return errors.New("waiting for the host's pid 1: it took too long")
		}
		return fmt.Errorf("waiting for the host's pid 1: it ended: %s", p.Log())
	}
	spaces, err := os.Open("/proc/1/ns") // of the host's own /proc
	if err != nil {
		return err
	}
	defer spaces.Close()
	if err := h.space.open(spaces, "pid"); err != nil {
		return err
	}
	return ctx.Err()
}
