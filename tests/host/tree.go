package host

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const hostSpaces = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_FS

// buildTree moves the calling thread into fresh namespaces and makes their root
// the host's tree. The next process that the thread starts is the host's pid 1.
// The layer that it returns is for the next boot, if there may be one.
func buildTree(cfg Config) (layer *os.File, err error) {
	if err := unix.Unshare(hostSpaces); err != nil {
		return nil, fmt.Errorf("making namespaces: %w", err)
	}
	if err := unix.Sethostname([]byte(cfg.Name)); err != nil {
		return nil, fmt.Errorf("naming the host: %w", err)
	}
	// Before anything else: machines with systemd share their mounts with every
	// new mount namespace.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("making mounts private: %w", err)
	}
	// Named by the working directory, so that it may be below workTree.
	if err := unix.Chdir(cfg.Root); err != nil {
		return nil, fmt.Errorf("entering the tree %s: %w", cfg.Root, err)
	}
	if layer, err = mountLayer(cfg); err != nil {
		return nil, err
	}
	steps := []func(Config) error{quietNetwork, mountOverlay, mountSystem, makeDevices, enterTree, writeIdentity, forgetMachine, prepareBoot}
	for _, step := range steps {
		if err := step(cfg); err != nil {
			return layer, err
		}
	}
	return layer, nil
}

// workTree is where the tree is put together, in the host's own mount
// namespace: a directory that every machine has.
const workTree = "/tmp"

// mountLayer mounts what the host's files are written to, on a tmpfs: nothing is
// written to disk, and all of it goes with the mount. A host that may boot again
// gets a second mount of it, in no namespace, for that.
func mountLayer(cfg Config) (*os.File, error) {
	if cfg.layer == nil {
		if err := mount("tmpfs", workTree, "tmpfs", 0, "mode=755"); err != nil {
			return nil, err
		}
		for _, dir := range []string{"upper", "work", "root"} {
			if err := os.Mkdir(filepath.Join(workTree, dir), 0o755); err != nil {
				return nil, err
			}
		}
	} else if err := unix.MoveMount(int(cfg.layer.Fd()), "", unix.AT_FDCWD, workTree, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, fmt.Errorf("mounting the host's files of its earlier boot: %w", err)
	}
	if cfg.Systemd == nil {
		return nil, nil
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, workTree, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("keeping the host's files for its next boot: %w", err)
	}
	return os.NewFile(uintptr(fd), "layer"), nil
}

// keep holds the layer for the next boot, instead of that of this one.
func (c *Config) keep(layer *os.File) {
	if c.layer != nil {
		c.layer.Close()
	}
	c.layer = layer
}

func mountOverlay(Config) error {
	options := fmt.Sprintf("lowerdir=.,upperdir=%s/upper,workdir=%s/work", workTree, workTree)
	if err := mount("overlay", workTree+"/root", "overlay", 0, options); err != nil {
		return err
	}
	return unix.Chdir(workTree + "/root")
}

func mountSystem(Config) error {
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	mounts := []struct {
		kind, target string
		flags        uintptr
		options      string
	}{
		{"sysfs", "sys", safe, ""},
		{"tmpfs", "run", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
		{"tmpfs", "tmp", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"tmpfs", "dev", unix.MS_NOSUID, "mode=755"},
	}
	for _, m := range mounts {
		if err := mount(m.kind, m.target, m.kind, m.flags, m.options); err != nil {
			return err
		}
	}
	return nil
}

func makeDevices(Config) error {
	devices := map[string][2]uint32{
		"null": {1, 3}, "zero": {1, 5}, "full": {1, 7}, "random": {1, 8}, "urandom": {1, 9},
		"tty": {5, 0}, "kvm": {10, 232}, "net/tun": {10, 200},
	}
	for _, dir := range []string{"dev/net", "dev/pts", "dev/shm"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	for name, number := range devices {
		path := filepath.Join("dev", name)
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(number[0], number[1]))); err != nil {
			return fmt.Errorf("making device %s: %w", name, err)
		}
		if err := os.Chmod(path, 0o666); err != nil { // past the umask
			return err
		}
	}
	if err := mount("devpts", "dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5"); err != nil {
		return err
	}
	if err := mount("tmpfs", "dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return err
	}
	links := map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0",
		"stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	}
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join("dev", name)); err != nil {
			return err
		}
	}
	return nil
}

func enterTree(Config) error {
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("entering the host's tree: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leaving the machine's tree: %w", err)
	}
	return unix.Chdir("/")
}

func writeIdentity(cfg Config) error {
	for _, dir := range []string{"/run/lock", "/run/dbus", "/run/netns", "/var/log", "/var/lib/dbus", "/var/lib/misc"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if cfg.layer != nil {
		return nil // it has one since its first boot
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	files := map[string]string{
		"/etc/hostname":            cfg.Name + "\n",
		"/etc/hosts":               "127.0.0.1 localhost " + cfg.Name + "\n::1 localhost\n",
		"/etc/machine-id":          hex.EncodeToString(id) + "\n",
		"/var/lib/dbus/machine-id": hex.EncodeToString(id) + "\n",
	}
	for path, content := range files {
		// Some of these may be links, to places that the host does not have.
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// forgetMachine takes the machine's own firewall settings out of the host, so
// that a test finds the same on a build machine and on a desktop.
func forgetMachine(cfg Config) error {
	if cfg.layer != nil {
		return nil
	}
	return removeAll([]string{
		"/etc/firewalld/*/*.xml", "/etc/firewalld/direct.xml", "/etc/virtfirewalld", "/var/lib/virtfirewalld",
		"/etc/libvirt/network.conf", "/etc/dnsmasq.d/*", "/var/lib/misc/dnsmasq.leases", "/usr/sbin/policy-rc.d",
	})
}

func removeAll(patterns []string) error {
	for _, pattern := range patterns {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("taking the machine's settings out: %w", err)
			}
		}
	}
	return nil
}

// quietNetwork makes a new network namespace's settings independent of the machine's,
// from which IPv4 ones are otherwise copied.
func quietNetwork(cfg Config) error {
	value := "0"
	if cfg.Forwarding {
		value = "1"
	}
	settings := [][2]string{
		{"ipv4/ip_forward", value},
		{"ipv6/conf/all/forwarding", value},
		{"ipv6/conf/default/forwarding", value},
		{"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/default/rp_filter", "0"},
		// Addresses are usable at once, link-local ones too.
		{"ipv6/conf/default/accept_dad", "0"},
	}
	for _, s := range settings {
		if err := os.WriteFile("/proc/sys/net/"+s[0], []byte(s[1]), 0o644); err != nil {
			return fmt.Errorf("setting sysctl %s: %w", strings.ReplaceAll(s[0], "/", "."), err)
		}
	}
	return nil
}

func mount(source, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mounting %s on %s in the host: %w", kind, target, err)
	}
	return nil
}
