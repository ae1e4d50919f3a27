package host

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Node is a host or a peer: an end of a packet's way.
type Node interface {
	Name() string
	// Do runs a function on a thread inside the node's network namespace.
	Do(fn func() error) error
}

// Peer is a machine next to a host: a guest on one of its bridges, or what an
// uplink leads to. It has its own network, its own host name and its own
// /etc/resolv.conf, /run and /sys; everything else is the host's.
type Peer struct {
	host  *Host
	name  string
	port  string
	space *space
	addrs []netip.Prefix
}

func (h *Host) newPeer(name, port string, addrs []netip.Prefix) (*Peer, error) {
	p := &Peer{host: h, name: name, port: port, addrs: addrs, space: &space{group: h.group.dir}}
	h.mu.Lock()
	_, taken := h.peers[name]
	h.mu.Unlock()
	if taken {
		return nil, fmt.Errorf("making %s: the host has a node of this name already", name)
	}
	err := onThread(p.build)
	if err != nil {
		p.space.close()
		return nil, fmt.Errorf("making %s: %w", name, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.peers[name] = p
	return p, nil
}

// build moves the calling thread into namespaces that become the peer's.
func (p *Peer) build() error {
	// Opened in the machine's /proc: the host's does not show our threads.
	spaces, err := os.Open("/proc/thread-self/ns")
	if err != nil {
		return err
	}
	defer spaces.Close()
	if err := p.host.space.enter(); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("making namespaces: %w", err)
	}
	if err := unix.Sethostname([]byte(p.name)); err != nil {
		return fmt.Errorf("naming the node: %w", err)
	}
	if err := peerMounts(); err != nil {
		return err
	}
	if err := quietNetwork(Config{}); err != nil {
		return err
	}
	return p.space.open(spaces, "pid_for_children")
}

// peerMounts keeps a peer's DHCP client, servers and bus clients off the host's
// files.
func peerMounts() error {
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	if err := os.WriteFile("/run/resolv.conf", nil, 0o644); err != nil {
		return err
	}
	if err := ensureFile("/etc/resolv.conf"); err != nil {
		return err
	}
	return mount("/run/resolv.conf", "/etc/resolv.conf", "", unix.MS_BIND, "")
}

// ensureFile makes path a plain file: a bind mount needs one, and some machines
// have a dangling link there.
func ensureFile(path string) error {
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
		return nil
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return os.WriteFile(path, nil, 0o644)
}

// Name returns the peer's name.
func (p *Peer) Name() string { return p.name }

// Addr returns the first address that the peer was given in a family; ok is false
// when it was given none.
func (p *Peer) Addr(ipv6 bool) (addr netip.Addr, ok bool) {
	for _, a := range p.addrs {
		if a.Addr().Is6() == ipv6 {
			return a.Addr(), true
		}
	}
	return netip.Addr{}, false
}

// Port returns the name of the peer's end on the host: a bridge's port, or the
// uplink.
func (p *Peer) Port() string { return p.port }

// NetNS returns the path of the peer's network namespace, for netlink handles.
func (p *Peer) NetNS() string { return p.space.netPath() }

// Do runs fn on a thread inside the peer's network namespace.
func (p *Peer) Do(fn func() error) error { return p.space.doNet(fn) }

// Run runs a command inside as root and returns its combined output.
func (p *Peer) Run(args ...string) (string, error) {
	return p.space.run(context.Background(), command{args: args})
}

// RunInput is Run with the given standard input.
func (p *Peer) RunInput(stdin string, args ...string) (string, error) {
	return p.space.run(context.Background(), command{stdin: stdin, args: args})
}

// Must runs a command as root that has to succeed and returns its output.
func (p *Peer) Must(args ...string) string {
	out, err := p.Run(args...)
	p.fail(err)
	return out
}

// Start starts a command as root in the background.
func (p *Peer) Start(name string, args ...string) *Process {
	return p.host.launch(p.space, command{name: name, args: args})
}

func (p *Peer) fail(err error) {
	if err != nil {
		p.host.cfg.Fail(fmt.Errorf("%s beside host %s: %w", p.name, p.host.cfg.Name, err))
	}
}
