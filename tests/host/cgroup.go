package host

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupPrefix = "virtfirewalld-test."

// cgroup is the host's own directory in the machine's cgroup2 tree: the one
// thing of a host that has a name outside and that the kernel does not remove
// with the last process. The guard removes it; what a killed guard left behind
// is swept by whoever makes the next host.
type cgroup struct {
	path string
	dir  *os.File
	leaf *os.File // below it, for the commands of a host with systemd
}

func newCgroup() (*cgroup, error) {
	root, err := cgroupRoot()
	if err != nil {
		return nil, err
	}
	sweepCgroups(root)
	owner, err := ownerID(os.Getpid())
	if err != nil {
		return nil, err
	}
	suffix := make([]byte, 8)
	if _, err := rand.Read(suffix); err != nil {
		return nil, err
	}
	c := &cgroup{path: filepath.Join(root, cgroupPrefix+owner+"."+hex.EncodeToString(suffix))}
	if err := os.Mkdir(c.path, 0o755); err != nil {
		return nil, fmt.Errorf("making the host's cgroup: %w (is the cgroup2 tree writable?)", err)
	}
	c.dir, err = os.Open(c.path)
	if err != nil {
		return nil, errors.Join(err, os.Remove(c.path))
	}
	return c, nil
}

// commands is where a host's commands start. systemd cannot hand controllers to
// its units while a process is in its root.
func (c *cgroup) commands(systemd bool) (*os.File, error) {
	if !systemd {
		return c.dir, nil
	}
	path := filepath.Join(c.path, "commands")
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, fmt.Errorf("making the cgroup of a host's commands: %w", err)
	}
	var err error
	c.leaf, err = os.Open(path)
	return c.leaf, err
}

// clear removes what is below, once its processes have ended.
func (c *cgroup) clear() error {
	if c.leaf != nil {
		c.leaf.Close()
		c.leaf = nil
	}
	entries, err := os.ReadDir(c.path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeInTime(filepath.Join(c.path, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *cgroup) remove() error {
	c.dir.Close()
	if c.leaf != nil {
		c.leaf.Close()
	}
	return removeInTime(c.path)
}

func removeInTime(path string) error {
	deadline := time.Now().Add(patience())
	for {
		err := removeCgroup(path)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(5 * time.Millisecond) // dying processes leave their cgroup a moment later
	}
}

// removeCgroup removes a cgroup directory and those below it.
func removeCgroup(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeCgroup(filepath.Join(path, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(path); err != nil && err != unix.ENOENT {
		return fmt.Errorf("removing cgroup %s: %w", path, err)
	}
	return nil
}

// sweepCgroups removes the cgroups of processes that are provably dead.
func sweepCgroups(root string) {
	paths, _ := filepath.Glob(filepath.Join(root, cgroupPrefix+"*"))
	for _, path := range paths {
		owner, _, ok := strings.Cut(strings.TrimPrefix(filepath.Base(path), cgroupPrefix), ".")
		if ok && ownerDead(owner) {
			// Whatever is in there lost its owner: end it, as the guard would have.
			_ = os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
			_ = removeCgroup(path) // busy for a moment: the next host's turn
		}
	}
}

// ownerID identifies a process among all that this machine ever ran: its pid
// namespace, its pid there, and the time of its start.
func ownerID(pid int) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return "", fmt.Errorf("identifying the owner of a host: %w", err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", fmt.Errorf("identifying the owner of a host: %w", err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	const startTime = 19 // field 22 of proc(5), counted from the third
	if len(fields) <= startTime {
		return "", fmt.Errorf("identifying the owner of a host: /proc/%d/stat has %d fields", pid, len(fields))
	}
	return fmt.Sprintf("%d-%d-%s", st.Ino, pid, fields[startTime]), nil
}

// ownerDead is true only for owners of our own pid namespace: of others
// nothing can be proved.
func ownerDead(owner string) bool {
	var ino uint64
	var pid int
	var start string
	if _, err := fmt.Sscanf(owner, "%d-%d-%s", &ino, &pid, &start); err != nil {
		return false
	}
	own, err := ownerID(os.Getpid())
	if err != nil || !strings.HasPrefix(own, fmt.Sprintf("%d-", ino)) {
		return false
	}
	now, err := ownerID(pid)
	if errors.Is(err, os.ErrNotExist) {
		return true
	}
	return err == nil && now != owner
}

func cgroupRoot() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", fmt.Errorf("looking for the cgroup2 tree: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) > 2 && fields[2] == "cgroup2" {
			return fields[1], nil
		}
	}
	return "", errors.New("looking for the cgroup2 tree: none is mounted; mount one with: mount -t cgroup2 cgroup2 /sys/fs/cgroup")
}
