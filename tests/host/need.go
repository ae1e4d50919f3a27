package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// packageOf returns the Debian package of a program that the hosts use.
func packageOf(program string) string {
	packages := map[string]string{
		"nsenter": "util-linux", "unshare": "util-linux", "mount": "mount", "cat": "coreutils", "find": "findutils",
		"nft": "nftables", "iptables": "iptables", "ip6tables": "iptables", "iptables-save": "iptables",
		"firewalld": "firewalld", "firewall-cmd": "firewalld", "dnsmasq": "dnsmasq-base", "polkitd": "polkitd",
		"pkcheck": "polkitd", "dbus-daemon": "dbus-daemon", "busctl": "systemd", "gdbus": "libglib2.0-bin",
		"ip": "iproute2", "bridge": "iproute2", "ss": "iproute2", "tc": "iproute2", "conntrack": "conntrack",
		"ping": "iputils-ping", "tcpdump": "tcpdump", "socat": "socat", "curl": "curl", "busybox": "busybox",
		"udhcpc": "udhcpc", "sysctl": "procps", "python3": "python3",
	}
	return packages[filepath.Base(program)]
}

// checkMachine returns what keeps this machine from having hosts at all.
func checkMachine() error {
	if os.Geteuid() != 0 {
		return errors.New("making a host needs root: run it as root (for tests: sudo make test)")
	}
	for _, program := range []string{"/usr/bin/nsenter", "/usr/bin/unshare", "/bin/mount", "/bin/cat", "/usr/bin/find"} {
		if err := needFile(program); err != nil {
			return err
		}
	}
	return nil
}

func needFile(path string) error {
	if _, err := os.Stat(path); err != nil {
		return missing(path)
	}
	return nil
}

func missing(program string) error {
	return fmt.Errorf("the program %s is missing: install the Debian package %s (tests/setup.sh does)", filepath.Base(program), packageOf(program))
}

// need finds a program in the host's tree.
func (h *Host) need(program string) error {
	return h.Inside(func() error {
		for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
			if _, err := os.Stat(filepath.Join(dir, program)); err == nil {
				return nil
			}
		}
		return missing(program)
	})
}

// packageHint names the package when a command was not found.
func packageHint(program string, err error) string {
	var exit *exec.ExitError
	name := packageOf(program)
	if name == "" || strings.Contains(program, "/") || !errors.As(err, &exit) || exit.ExitCode() != 127 {
		return ""
	}
	return " (install the Debian package " + name + ")"
}
