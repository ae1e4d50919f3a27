package host_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

func TestBoots(t *testing.T) {
	began := time.Now()
	h := host.New(t, host.Named("alpha"), host.Booted())
	t.Logf("booted after %s", time.Since(began))
	tests := []struct{ command, want string }{
		{"cat /proc/1/comm; systemctl is-system-running; systemd-detect-virt", "systemd\nrunning\ncontainer-other"},
		{"systemctl --failed --plain --no-legend", ""},
		{"hostname; cat /etc/hostname", "alpha\nalpha"},
		{"grep ^0: /proc/self/cgroup; grep ^0: /proc/1/cgroup", "0::/commands\n0::/init.scope"},
		{"systemctl is-active systemd-journald systemd-logind dbus", "active\nactive\nactive"},
		// What would reach past the host, or is there only when asked for.
		{"systemctl is-active systemd-udevd firewalld libvirtd ufw docker", "inactive\ninactive\ninactive\ninactive\ninactive"},
		{"systemctl is-enabled systemd-udevd firewalld libvirtd.socket", "masked\ndisabled\ndisabled"},
		{"(echo 1 >/proc/sys/kernel/panic) 2>&1 || echo refused", "sh: 1: cannot create /proc/sys/kernel/panic: Read-only file system\nrefused"},
		{"systemd-run --quiet --wait --unit=marked echo a line of a unit; journalctl -q -o cat -u marked _TRANSPORT=stdout", "a line of a unit"},
	}
	for _, test := range tests {
		out, _ := h.Run("sh", "-c", test.command)
		if got := strings.TrimSpace(out); got != test.want {
			t.Errorf("%s: got %q, want %q", test.command, got, test.want)
		}
	}
}

func TestBothBusesOfBootedHosts(t *testing.T) {
	for name, test := range map[string]struct {
		options []host.Option
		program string
	}{
		"daemon": {[]host.Option{host.Booted()}, "dbus-daemon"},
		"broker": {[]host.Option{host.WithBroker()}, "dbus-broker-launch"},
	} {
		t.Run(name, func(t *testing.T) {
			h := host.New(t, test.options...)
			pid := strings.TrimSpace(h.Must("systemctl", "show", "--property=MainPID", "--value", "dbus.service"))
			// The kernel keeps 15 bytes of a program's name.
			if comm := strings.TrimSpace(h.Must("cat", "/proc/"+pid+"/comm")); !strings.HasPrefix(test.program, comm) {
				t.Errorf("the bus is %s, want %s", comm, test.program)
			}
			conn := dialledAsRoot(t, h)
			// Started by systemd when it is called.
			var version string
			object := conn.Object("org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority")
			property, err := object.GetProperty("org.freedesktop.PolicyKit1.Authority.BackendVersion")
			if err == nil {
				err = property.Store(&version)
			}
			if err != nil || version == "" {
				t.Errorf("polkit's version is %q, %v", version, err)
			}
			if out, err := h.RunAs(2001, "busctl", "--no-pager", "list"); err != nil || !strings.Contains(out, "2001") {
				t.Errorf("as a user: %q, %v", out, err)
			}
		})
	}
}

func TestFirewalldInBootedHosts(t *testing.T) {
	running := func(h *host.Host) {
		t.Helper()
		if out := h.Must("firewall-cmd", "--state"); strings.TrimSpace(out) != "running" {
			t.Errorf("firewall-cmd says %q", out)
		}
	}
	t.Run("started", func(t *testing.T) {
		h := host.New(t, host.Booted())
		h.Must("systemctl", "start", "firewalld")
		h.AwaitName("org.fedoraproject.FirewallD1")
		running(h)
		h.Must("systemctl", "stop", "firewalld")
		if out, err := h.Run("firewall-cmd", "--state"); err == nil {
			t.Errorf("still running after it was stopped: %q", out)
		}
	})
	t.Run("enabled", func(t *testing.T) {
		h := host.New(t, host.Booted("firewalld"))
		running(h)
		if out := strings.TrimSpace(h.Must("systemctl", "is-enabled", "firewalld")); out != "enabled" {
			t.Errorf("firewalld is %s", out)
		}
	})
}

func TestUnitThatIsNotThere(t *testing.T) {
	_, err := host.Create(context.Background(), host.Config{Systemd: &host.Systemd{Units: []string{"nosuch.service"}}})
	if err == nil || !strings.Contains(err.Error(), "nosuch.service") {
		t.Errorf("got %v", err)
	}
}

func TestRebootKeepsFilesAlone(t *testing.T) {
	h := host.New(t, host.Booted("firewalld"))
	h.Bridge("virbr0", "192.168.122.1/24")
	h.Guest("virbr0", "guest", "192.168.122.10/24")
	sleeper := h.Start("sleeper", "sleep", "600")
	h.Must("sh", "-c", "echo etc >/etc/kept; mkdir /var/lib/kept; echo run >/run/lost; echo tmp >/tmp/lost; rm /etc/hosts")
	h.Must("firewall-cmd", "--permanent", "--new-zone=kept")
	h.Must("systemctl", "mask", "systemd-logind")
	before := h.Must("cat", "/etc/machine-id", "/proc/sys/kernel/random/boot_id")
	first := holdSpaces(t, h)
	for range 2 {
		began := time.Now()
		h.Reboot()
		t.Logf("rebooted after %s", time.Since(began))
		if sleeper.Running() {
			t.Error("a program is still running after the reboot")
		}
		for command, want := range map[string]string{
			"cat /etc/kept; ls -d /var/lib/kept":                              "etc\n/var/lib/kept",
			"ls /run/lost /tmp/lost /etc/hosts 2>&1 | grep -c 'No such file'": "3",
			"ls /sys/class/net":                             "lo",
			"systemctl is-system-running":                   "running",
			"systemctl is-enabled firewalld systemd-logind": "enabled\nmasked",
			"firewall-cmd --get-zones | grep -cw kept":      "1",
		} {
			out, _ := h.Run("sh", "-c", command)
			if got := strings.TrimSpace(out); got != want {
				t.Errorf("%s: got %q, want %q", command, got, want)
			}
		}
		if after := h.Must("cat", "/etc/machine-id", "/proc/sys/kernel/random/boot_id"); after != before {
			t.Errorf("it is another machine: %q, before %q", after, before)
		}
	}
	if left := others(t, first); len(left) > 0 {
		t.Errorf("still in the namespaces of the first boot: %v", left)
	}
	// The network can be made again.
	h.Bridge("virbr0", "192.168.122.1/24")
	h.Guest("virbr0", "guest", "192.168.122.10/24")
}

func TestPlainHostCannotReboot(t *testing.T) {
	var trouble error
	h, err := host.Create(context.Background(), host.Config{Fail: func(err error) { trouble = errors.Join(trouble, err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	h.Reboot()
	if trouble == nil || !strings.Contains(trouble.Error(), "only a host with systemd") {
		t.Errorf("got %v", trouble)
	}
}

// Two at once, since a unit of one must not meet the other's.
func TestBootedHostsLeaveNothing(t *testing.T) {
	before := machine(t)
	hosts := []*host.Host{host.New(t, host.Booted("firewalld")), host.New(t, host.Booted("firewalld"))}
	var held []map[string]bool
	var groups []string
	for i, h := range hosts {
		mark := "mark" + itoa(i)
		h.Must("firewall-cmd", "--permanent", "--new-zone="+mark)
		h.Must("systemctl", "restart", "firewalld")
		if out := h.Must("firewall-cmd", "--get-zones"); !strings.Contains(out, mark) || strings.Contains(out, "mark"+itoa(1-i)) {
			t.Errorf("host %d has the zones %s", i, out)
		}
		held = append(held, holdSpaces(t, h))
		groups = append(groups, filepath.Base(filepath.Dir(cgroupPath(t, h.PID()))))
	}
	if during := machine(t); during != before {
		t.Errorf("the machine changed:\n%s\nbefore:\n%s", during, before)
	}
	for i, h := range hosts {
		if len(others(t, held[i])) == 0 || findCgroup(t, groups[i]) == "" {
			t.Fatalf("host %d cannot be seen while it is there, so its end could not be: %v %v", i, held[i], groups[i])
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		if left := others(t, held[i]); len(left) > 0 {
			t.Errorf("still in the namespaces of host %d: %v", i, left)
		}
		if findCgroup(t, groups[i]) != "" {
			t.Errorf("the cgroup %s is still there", groups[i])
		}
	}
	if after := machine(t); after != before {
		t.Errorf("the machine changed:\n%s\nbefore:\n%s", after, before)
	}
}

// holdSpaces keeps a host's namespaces from ending, since the kernel would give
// their numbers to the next ones.
func holdSpaces(t *testing.T, h *host.Host) map[string]bool {
	t.Helper()
	spaces := map[string]bool{}
	for _, kind := range []string{"net", "mnt", "pid", "cgroup"} {
		path := "/proc/" + itoa(h.PID()) + "/ns/" + kind
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		link, err := os.Readlink(path)
		if err != nil {
			t.Fatal(err)
		}
		spaces[link] = true
	}
	return spaces
}

// others lists the processes, but for this one, that are in one of the
// namespaces or hold one open.
func others(t *testing.T, spaces map[string]bool) []string {
	t.Helper()
	return slices.DeleteFunc(holders(t, spaces), func(path string) bool {
		return strings.HasPrefix(path, "/proc/"+itoa(os.Getpid())+"/")
	})
}
