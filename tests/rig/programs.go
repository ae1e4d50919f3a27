package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// Source returns the path of a file of the source tree. Tests run in the folders
// of their packages.
func Source(elements ...string) string {
	top := "."
	for range 8 {
		if _, err := os.Stat(filepath.Join(top, "go.mod")); err == nil {
			break
		}
		top = filepath.Join("..", top)
	}
	return filepath.Join(append([]string{top}, elements...)...)
}

// Install puts the programs under test, the bus policy and the polkit actions
// where they belong on a host.
func Install(t testing.TB, h *host.Host) {
	t.Helper()
	built, err := programs()
	Must(t, err)
	for name, to := range map[string]string{"virtfirewalld": "/usr/sbin/virtfirewalld", "virtfirewallctl": "/usr/bin/virtfirewallctl"} {
		Must(t, h.CopyIn(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), built[name].Fd()), to))
	}
	Must(t, h.CopyIn(Source("dbus", ManagerName+".conf"), "/usr/share/dbus-1/system.d/"+ManagerName+".conf"))
	Must(t, h.CopyIn(Source("polkit", PolkitPolicy), "/usr/share/polkit-1/actions/"+PolkitPolicy))
}

// programs returns in-memory copies of the programs under test: the next build in
// the tree replaces the files.
var programs = sync.OnceValues(func() (map[string]*os.File, error) {
	// Set where they were built elsewhere, for a machine without a compiler.
	dir := os.Getenv("VIRTFIREWALLD_TEST_PROGRAMS")
	if dir == "" {
		unlock, err := build()
		if err != nil {
			return nil, err
		}
		defer unlock()
		dir = Source(buildDir())
	}
	out := map[string]*os.File{}
	for _, name := range []string{"virtfirewalld", "virtfirewallctl"} {
		f, err := inMemory(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("reading the programs under test: %w", err)
		}
		out[name] = f
	}
	return out, nil
})

// inMemory copies a program to a file that ends with this process.
func inMemory(file string) (*os.File, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate(filepath.Base(file), unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), file)
	if _, err := f.Write(data); err != nil {
		return nil, err
	}
	return f, f.Chmod(0o755)
}

// buildDir is below bin/, which make clean removes.
func buildDir() string {
	if raceEnabled {
		return "bin/tests/race"
	}
	return "bin/tests/plain"
}

// build builds the programs under test. The packages of a test run build one
// after the other into one directory: go links what is up to date there only
// once.
func build() (unlock func(), err error) {
	dir := Source(buildDir())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("building the programs under test: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("building the programs under test: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		lock.Close()
		return nil, fmt.Errorf("waiting for another build of the programs under test: %w", err)
	}
	for _, name := range []string{"virtfirewalld", "virtfirewallctl"} {
		args := []string{"build", "-buildvcs=false", "-o", filepath.Join(buildDir(), name)}
		if raceEnabled {
			args = append(args, "-race") // the daemon finds its own races too
		}
		cmd := exec.Command("go", append(args, "./cmd/"+name)...)
		cmd.Dir = Source()
		if out, err := cmd.CombinedOutput(); err != nil {
			lock.Close()
			return nil, fmt.Errorf("building %s: %w\n%s", name, err, out)
		}
	}
	return func() { lock.Close() }, nil
}
