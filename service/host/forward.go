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

// Routes is what forwarding reads about the host's links.
type Routes interface {
	LinkByIndex(index int) (watch.Link, bool)
	DefaultRoutes() []watch.Route
}

// Forwarding switches the kernel's IP forwarding on, never off: other programs may
// rely on it by then.
type Forwarding struct {
	routes Routes
	proc   string
}

// NewForwarding returns Forwarding that reads and writes below proc, usually /proc.
func NewForwarding(routes Routes, proc string) *Forwarding {
	return &Forwarding{routes: routes, proc: proc}
}

// Demand is what a network needs forwarded.
type Demand struct {
	V4, V6  bool
	Bridge  string   // the network's; "" while there is none
	Devices []string // the devices that its traffic may leave by; none: any default route's
	// Guests reports whether a link is a bridge of guests; nil for none. Such a
	// bridge is no uplink, and routes that the host learned there may be lost.
	Guests func(index int) bool
}

// guests reports whether a link is a bridge of guests.
func (d Demand) guests(index int) bool { return d.Guests != nil && d.Guests(index) }

const (
	forward4 = "net/ipv4/ip_forward"
	forward6 = "net/ipv6/conf/all/forwarding"
)

// Off returns the settings that a network needs on and that are off: the host's,
// which switches those of all links, or else those of single ones. It changes
// nothing.
//
// IPv4 packets are forwarded if the interface that they arrived on forwards, so the
// bridge and, for the answers, the uplinks need it. For IPv6 only the host's setting
// counts (ip6_forward in net/ipv6/ip6_output.c); a bridge whose own is off
// advertises that it is no longer a router (RFC 4861, 7.2.5), and an uplink's only
// means that the host learns its routes there from router advertisements.
func (f *Forwarding) Off(d Demand) (off []string, err error) {
	var errs []error
	for _, key := range f.Needed(d) {
		if slices.Contains(off, forward6) && isIPv6(key) || slices.Contains(off, forward4) && !isIPv6(key) {
			continue
		}
		value, err := f.read(key)
		switch {
		case errors.Is(err, fs.ErrNotExist) && key != forward4:
			// The link is gone, or the kernel has no IPv6.
		case err != nil:
			errs = append(errs, fmt.Errorf("reading %s: %w", SysctlName(key), err))
		case value == "0":
			off = append(off, key)
		}
	}
	return off, errors.Join(errs...)
}

// Needed returns the settings that have to be on.
func (f *Forwarding) Needed(d Demand) (keys []string) {
	if d.V4 {
		keys = append(keys, forward4)
		for _, name := range append([]string{d.Bridge}, f.uplinks(d)...) {
			if isFileName(name) {
				keys = append(keys, "net/ipv4/conf/"+name+"/forwarding")
			}
		}
	}
	if d.V6 {
		keys = append(keys, forward6)
		if isFileName(d.Bridge) {
			keys = append(keys, "net/ipv6/conf/"+d.Bridge+"/forwarding")
		}
	}
	return keys
}

// uplinks returns the interfaces that answers of IPv4 arrive on.
func (f *Forwarding) uplinks(d Demand) (names []string) {
	if len(d.Devices) > 0 {
		return d.Devices
	}
	for _, r := range f.routes.DefaultRoutes() {
		link, ok := f.routes.LinkByIndex(r.Index)
		if !r.IPv6 && ok && !d.guests(r.Index) && !slices.Contains(names, link.Name) {
			names = append(names, link.Name)
		}
	}
	return names
}

// Enable switches on what is needed and off, and returns what it switched on.
// problem is a sentence with the remedy if IPv6 forwarding had to stay off.
func (f *Forwarding) Enable(d Demand) (on []string, problem string, err error) {
	off, err := f.Off(d)
	errs := []error{err}
	var err6 error
	if d.V6 {
		problem, err6 = f.obstacle(d, off)
		errs = append(errs, err6)
	}
	for _, key := range off {
		if isIPv6(key) && (problem != "" || err6 != nil) {
			continue
		}
		switched, err := f.switchOn(key)
		if errs = append(errs, err); switched {
			on = append(on, key)
		}
	}
	return on, problem, errors.Join(errs...)
}

func isIPv6(key string) bool { return strings.HasPrefix(key, "net/ipv6/") }

// obstacle returns why IPv6 forwarding cannot be switched on; "" if it can, or if
// nothing of it is off. A bridge's own setting makes the kernel drop default routes
// as the host's does (addrconf_fixup_forwarding in net/ipv6/addrconf.c).
func (f *Forwarding) obstacle(d Demand, off []string) (problem string, err error) {
	if _, err := f.read(forward6); errors.Is(err, fs.ErrNotExist) {
		return "IPv6 is switched off in this kernel, so the network's IPv6 addresses lead nowhere: " +
			"boot without ipv6.disable=1 and reapply, or take the IPv6 addresses out of the network", nil
	}
	if !slices.ContainsFunc(off, isIPv6) {
		return "", nil
	}
	losing, err := f.linksLosingRoutes(d)
	if err != nil {
		return "", fmt.Errorf("looking for default routes that IPv6 forwarding would drop: %w", err)
	}
	if len(losing) > 0 {
		return refusal(losing), nil
	}
	return "", nil
}

// linksLosingRoutes returns the interfaces whose default routes the kernel would
// drop (rt6_purge_dflt_routers in net/ipv6/route.c): those that it learned from
// router advertisements itself, unless accept_ra is 2. The interface's own
// forwarding makes no difference. A route through a bridge of guests may be lost: a
// guest advertised it.
func (f *Forwarding) linksLosingRoutes(d Demand) ([]string, error) {
	var names []string
	for _, r := range f.routes.DefaultRoutes() {
		link, ok := f.routes.LinkByIndex(r.Index)
		if !r.IPv6 || !r.FromRA || !ok || d.guests(r.Index) || !isFileName(link.Name) || slices.Contains(names, link.Name) {
			continue
		}
		accept, err := f.read("net/ipv6/conf/" + link.Name + "/accept_ra")
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was just deleted, and its routes with it
		}
		if err != nil {
			return nil, err
		}
		if accept == "0" {
			// NetworkManager and systemd-networkd read advertisements instead of
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

// learnedByKernel reports whether a default route through the interface has the
// flags of a router that the kernel learned of, which netlink does not show.
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
		settings[i] = SysctlName("net/ipv6/conf/" + name + "/accept_ra")
	}
	return fmt.Sprintf("IPv6 forwarding is off, and switching it on would cost the host the default route that %s learned from router advertisements: set %s to 2, then reapply",
		strings.Join(names, " and "), strings.Join(settings, " and "))
}

// SysctlName returns a setting's name as sysctl reads it: a key with dots in it
// needs the form with slashes.
func SysctlName(key string) string {
	if strings.Contains(key, ".") {
		return key
	}
	return strings.ReplaceAll(key, "/", ".")
}

// isFileName reports whether the name can only be that of a link's own folder of
// /proc/sys/net/ipv6/conf.
func isFileName(name string) bool {
	return name != "" && name != "." && name != ".." && name != "all" && name != "default" &&
		!strings.ContainsAny(name, "/\x00")
}

// switchOn replaces 0 by 1 and leaves every other value alone: some kernels have
// more of them, and a write has effects even if nothing changes. The host's setting,
// just written, switches its links on too.
func (f *Forwarding) switchOn(key string) (switched bool, err error) {
	value, err := f.read(key)
	if errors.Is(err, fs.ErrNotExist) && key != forward4 && key != forward6 {
		return false, nil // the link was just deleted
	}
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", SysctlName(key), err)
	}
	if value != "0" {
		return false, nil
	}
	if err := write(f.path(key), "1"); err != nil {
		return false, fmt.Errorf("setting %s to 1: %w", SysctlName(key), err)
	}
	return true, nil
}

// write writes a value into an existing file.
func write(path, value string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(value + "\n")
	return errors.Join(err, file.Close())
}

func (f *Forwarding) read(key string) (string, error) {
	data, err := os.ReadFile(f.path(key))
	return string(bytes.TrimSpace(data)), err
}

func (f *Forwarding) path(key string) string { return filepath.Join(f.proc, "sys", key) }
