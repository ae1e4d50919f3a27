package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Systemd configures how a host boots whose pid 1 is the systemd of its tree.
type Systemd struct {
	// Units are enabled and started with the boot. Nothing else is that the tree
	// enables in /etc; what is started on demand, such as polkit, is there.
	Units []string
	// Broker makes dbus-broker the system bus, in the place of dbus-daemon.
	Broker bool
}

// systemdInit takes the place of a plain host's pid 1. The name in the variable
// container tells systemd that the machine is not its own; which name does not
// matter.
const systemdInit = `
for unit in "$@"; do
	SYSTEMD_OFFLINE=1 systemctl --quiet enable "$unit" &&
	SYSTEMD_OFFLINE=1 systemctl --quiet add-wants multi-user.target "$unit" || exit
done
exec env -i container=virtfirewalld-test PATH=/usr/sbin:/usr/bin TERM=dumb LANG=C.UTF-8 \
	/lib/systemd/systemd --log-target=journal`

// maskedUnits would reach past the host, or wait for what it does not have:
// devices and kernel modules are the machine's, and the console is nobody's.
var maskedUnits = []string{
	"systemd-udevd.service", "systemd-udevd-kernel.socket", "systemd-udevd-control.socket",
	"systemd-udev-trigger.service", "systemd-udev-settle.service", "systemd-modules-load.service",
	"systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "proc-sys-fs-binfmt_misc.mount",
	"console-getty.service",
}

// prepareBoot takes out of /etc what the machine does when it boots, so that a
// host does the same on a build machine and on somebody's desktop.
func prepareBoot(cfg Config) error {
	if cfg.Systemd == nil {
		return nil
	}
	// systemd's own log and status go to its journal.
	if err := unix.Mknod("/dev/console", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		return fmt.Errorf("making device console: %w", err)
	}
	if cfg.layer != nil {
		return nil // /etc is as the host's earlier boot left it
	}
	patterns := []string{"/etc/systemd/system/*", "/etc/rc?.d/*", "/etc/sysctl.conf", "/etc/sysctl.d/*", "/etc/tmpfiles.d/*", "/etc/crypttab"}
	if err := removeAll(patterns); err != nil {
		return err
	}
	files := map[string]string{
		"/etc/fstab":    "",
		"/etc/.updated": "", // or whatever is newer than it has caches made anew
		"/var/.updated": "",
	}
	for path, content := range files {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	links := map[string]string{}
	for _, unit := range maskedUnits {
		links[unit] = "/dev/null"
	}
	if cfg.Systemd.Broker {
		const broker = "/lib/systemd/system/dbus-broker.service"
		if err := needFile(broker); err != nil {
			return errors.New("booting with dbus-broker: install the Debian package dbus-broker (tests/setup.sh does)")
		}
		links["dbus.service"] = broker
	}
	for unit, to := range links {
		if err := os.Symlink(to, filepath.Join("/etc/systemd/system", unit)); err != nil {
			return err
		}
	}
	return nil
}

// awaitBooted waits until systemd has started all that it is to start. Whether
// all of it did start is for the test to ask.
func (h *Host) awaitBooted() error {
	err := h.await(h.init, func(context.Context) error {
		out, err := h.Run("systemctl", "is-system-running", "--wait")
		state := strings.TrimSpace(out)
		if state == "running" || state == "degraded" {
			return nil
		}
		return fmt.Errorf("booting: systemd is %s: %w", state, err)
	})
	if err != nil && h.init.Running() {
		jobs, _ := h.Run("systemctl", "--no-pager", "list-jobs")
		return fmt.Errorf("%w\n%s", err, jobs)
	}
	return err
}

// Reboot shuts a booted host down and boots it again. Its files are kept, but
// for /run and /tmp; its network is a new one. The guests and the uplinks' peers
// are gone, and what Start has started is. Nothing else may use the host
// meanwhile, and connections to its bus end.
func (h *Host) Reboot() {
	h.fail(h.reboot())
}

func (h *Host) reboot() error {
	if h.cfg.Systemd == nil {
		return errors.New("rebooting: only a host with systemd (Booted) can")
	}
	if err := h.shutDown(); err != nil {
		return fmt.Errorf("shutting down: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience())
	defer cancel()
	if err := h.bootTree(ctx, nil); err != nil {
		return fmt.Errorf("booting again: %w", err)
	}
	return nil
}

// shutdownPatience is above the 90 s that systemd gives a unit to stop.
const shutdownPatience = 2 * time.Minute

// shutDown has systemd stop its units, and waits until nothing of the host is
// left but its layer and its cgroup.
func (h *Host) shutDown() error {
	const powerOff = syscall.Signal(34 + 4) // SIGRTMIN+4, systemd(1)
	if err := h.init.Signal(powerOff); err != nil {
		return err
	}
	select {
	case <-h.init.Done():
	case <-time.After(shutdownPatience):
		jobs, _ := h.Run("systemctl", "--no-pager", "list-jobs")
		return fmt.Errorf("systemd is still there after %s\n%s", shutdownPatience, jobs)
	}
	h.mu.Lock()
	processes, peers := h.processes, h.peers
	h.processes, h.peers, h.subnets = nil, map[string]*Peer{}, nil
	h.mu.Unlock()
	var errs []error
	for _, p := range processes {
		errs = append(errs, waitClosed(p.Done(), p.Name))
	}
	for _, p := range peers {
		p.space.close()
	}
	h.space.close()
	errs = append(errs, h.group.clear())
	return errors.Join(errs...)
}
