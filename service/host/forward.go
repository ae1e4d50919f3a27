package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

// Routes is what forwarding needs to know of the host's links.
type Routes interface {
	LinkByIndex(index int) (watch.Link, bool)
	DefaultRoutes() []watch.Route
}

// Forwarding switches the kernel's IP forwarding on, never off: nobody knows
// who else relies on it by then.
type Forwarding struct {
	routes Routes
	proc   string
}

// NewForwarding looks at and writes what is below proc, usually /proc.
func NewForwarding(routes Routes, proc string) *Forwarding {
	return &Forwarding{routes: routes, proc: proc}
}

const (
	forward4 = "net/ipv4/ip_forward"
	forward6 = "net/ipv6/conf/all/forwarding"
)

// Enable switches on what is needed and off. problem is a sentence with the
// remedy where IPv6 forwarding had to be left off.
func (f *Forwarding) Enable(v4, v6 bool) (problem string, err error) {
	var err4, err6 error
	if v4 {
		err4 = f.switchOn(forward4)
	}
	if v6 {
		problem, err6 = f.enable6()
	}
	return problem, errors.Join(err4, err6)
}

func (f *Forwarding) enable6() (problem string, err error) {
	value, err := f.read(forward6)
	if errors.Is(err, fs.ErrNotExist) {
		return "IPv6 is switched off in this kernel, so the network's IPv6 addresses lead nowhere: " +
			"boot without ipv6.disable=1 and reapply, or take the IPv6 addresses out of the network", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading net.ipv6.conf.all.forwarding: %w", err)
	}
	if value != "0" {
		return "", nil
	}
	losing, err := f.losing()
	if err != nil {
		return "", fmt.Errorf("looking for default routes that IPv6 forwarding would drop: %w", err)
	}
	if len(losing) > 0 {
		return refusal(losing), nil
	}
	return "", f.switchOn(forward6)
}

// losing are the interfaces whose default routes the kernel would drop
// (rt6_purge_dflt_routers in net/ipv6/route.c): those that it learned from
// router advertisements itself, unless accept_ra is 2. The interface's own
// forwarding makes no difference.
func (f *Forwarding) losing() ([]string, error) {
	var names []string
	for _, r := range f.routes.DefaultRoutes() {
		link, ok := f.routes.LinkByIndex(r.Index)
		if !r.IPv6 || !r.FromRA || !ok || !isFileName(link.Name) || slices.Contains(names, link.Name) {
			continue
		}
		accept, err := f.read("net/ipv6/conf/" + link.Name + "/accept_ra")
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just gone, and its routes with it
		}
		if err != nil {
			return nil, err
		}
		if accept == "0" {
			// NetworkManager and systemd-networkd read advertisements in place of
			// the kernel, and mark their routes as if it had. It keeps those.
			if kernels, err := f.learnedByKernel(link.Name); err == nil && !kernels {
				continue
			}
		}
		if accept != "2" {
			names = append(names, link.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// learnedByKernel says whether a default route by the interface has the flags
// of a router that the kernel learned of, which netlink does not show.
func (f *Forwarding) learnedByKernel(name string) (bool, error) {
	// Not /proc/net, which is that of the process's first thread.
	data, err := os.ReadFile(filepath.Join(f.proc, "thread-self/net/ipv6_route"))
	if err != nil {
		return false, err
	}
	const rtfDefault, rtfAddrconf = 0x10000, 0x40000 // linux/ipv6_route.h
	for line := range bytes.Lines(data) {
		// destination, length, source, length, gateway, metric, references, uses, flags, interface
		fields := bytes.Fields(line)
		if len(fields) != 10 || string(fields[1]) != "00" || string(fields[9]) != name {
			continue
		}
		flags, err := strconv.ParseUint(string(fields[8]), 16, 64)
		if err != nil || flags&(rtfDefault|rtfAddrconf) != 0 {
			return true, nil
		}
	}
	return false, nil
}

func refusal(names []string) string {
	settings := make([]string, len(names))
	for i, name := range names {
		settings[i] = sysctlKey(name)
	}
	return fmt.Sprintf("IPv6 forwarding is off, and switching it on would cost the host the default route that %s learned from router advertisements: set %s to 2, then reapply",
		strings.Join(names, " and "), strings.Join(settings, " and "))
}

// sysctlKey names an interface's accept_ra as sysctl reads it: a name with
// dots in it needs the form with slashes.
func sysctlKey(name string) string {
	key := "net/ipv6/conf/" + name + "/accept_ra"
	if strings.Contains(name, ".") {
		return key
	}
	return strings.ReplaceAll(key, "/", ".")
}

// isFileName says whether the name can only be that of a folder of
// /proc/sys/net/ipv6/conf of its own.
func isFileName(name string) bool {
	return name != "" && name != "." && name != ".." && name != "all" && name != "default" &&
		!strings.ContainsAny(name, "/\x00")
}

// switchOn writes 1 in place of 0 and leaves every other value alone: some
// kernels have more of them, and a write has effects even if nothing changes.
func (f *Forwarding) switchOn(key string) error {
	name := strings.ReplaceAll(key, "/", ".")
	value, err := f.read(key)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	if value != "0" {
		return nil
	}
	file, err := os.OpenFile(f.path(key), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("setting %s to 1: %w", name, err)
	}
	_, err = file.WriteString("1\n")
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("setting %s to 1: %w", name, err)
	}
	return nil
}

func (f *Forwarding) read(key string) (string, error) {
	data, err := os.ReadFile(f.path(key))
	return string(bytes.TrimSpace(data)), err
}

func (f *Forwarding) path(key string) string { return filepath.Join(f.proc, "sys", key) }
