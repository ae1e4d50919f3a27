package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

const busSocket = "/run/dbus/system_bus_socket"

// Bus starts dbus-daemon as the host's system bus, at the usual path, and waits
// until it answers.
func (h *Host) Bus() *Process {
	p, err := h.startBus()
	h.fail(err)
	return p
}

func (h *Host) startBus() (*Process, error) {
	if err := h.need("dbus-daemon"); err != nil {
		return nil, err
	}
	p := h.Start("dbus-daemon", "dbus-daemon", "--system", "--nofork", "--nopidfile", "--nosyslog")
	return p, h.await(p, func(ctx context.Context) error {
		conn, err := h.DialBus(ctx)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// BusAddress returns the address of the host's system bus for clients outside, which
// must run as root.
func (h *Host) BusAddress() string { return "unix:path=" + h.Path(busSocket) }

// DialBus connects to the host's system bus from outside, as root.
func (h *Host) DialBus(ctx context.Context) (*dbus.Conn, error) {
	conn, err := dbus.Connect(h.BusAddress(), dbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("connecting to the bus of %s: %w", h.Name(), err)
	}
	return conn, nil
}

// AwaitName waits until a name on the host's bus has an owner.
func (h *Host) AwaitName(name string) {
	h.fail(h.await(nil, func(ctx context.Context) error { return h.owned(ctx, name) }))
}

func (h *Host) owned(ctx context.Context, name string) error {
	conn, err := h.DialBus(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	var owner string
	call := conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetNameOwner", 0, name)
	if err := call.Store(&owner); err != nil {
		return fmt.Errorf("waiting for %s: %w", name, err)
	}
	return nil
}

// Polkit starts polkitd on the host's bus and waits until it is there.
func (h *Host) Polkit() *Process {
	p, err := h.startPolkit()
	h.fail(err)
	return p
}

func (h *Host) startPolkit() (*Process, error) {
	for _, path := range []string{"/usr/lib/polkit-1/polkitd", "/usr/libexec/polkitd"} {
		if err := h.Inside(func() error { return needFile(path) }); err != nil {
			continue
		}
		p := h.Start("polkitd", path, "--no-debug")
		return p, h.await(p, func(ctx context.Context) error { return h.owned(ctx, "org.freedesktop.PolicyKit1") })
	}
	return nil, missing("polkitd")
}

// Firewalld starts the real firewalld with the given backend, nftables or
// iptables, and waits until it is running. It needs Bus.
func (h *Host) Firewalld(backend string) *Process {
	p, err := h.startFirewalld(backend)
	h.fail(err)
	return p
}

func (h *Host) startFirewalld(backend string) (*Process, error) {
	if backend != "nftables" && backend != "iptables" {
		return nil, fmt.Errorf("starting firewalld: no such backend: %q", backend)
	}
	if err := h.need("firewalld"); err != nil {
		return nil, err
	}
	if err := h.setFirewalldBackend(backend); err != nil {
		return nil, err
	}
	p := h.Start("firewalld", "firewalld", "--nofork", "--nopid")
	return p, h.await(p, h.firewalldRunning)
}

func (h *Host) setFirewalldBackend(backend string) error {
	const path = "/etc/firewalld/firewalld.conf"
	conf, err := h.ReadFile(path)
	if err != nil {
		return err
	}
	var out strings.Builder
	for line := range strings.Lines(string(conf)) {
		if strings.HasPrefix(line, "FirewallBackend=") {
			line = "FirewallBackend=" + backend + "\n"
		}
		out.WriteString(line)
	}
	return h.WriteFile(path, []byte(out.String()), 0o644)
}

func (h *Host) firewalldRunning(ctx context.Context) error {
	const name = "org.fedoraproject.FirewallD1"
	// Asking for the name first keeps the bus from starting a second firewalld.
	if err := h.owned(ctx, name); err != nil {
		return err
	}
	conn, err := h.DialBus(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	object := conn.Object(name, "/org/fedoraproject/FirewallD1")
	var state dbus.Variant
	call := object.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", dbus.FlagNoAutoStart, name, "state")
	if err := call.Store(&state); err != nil {
		return fmt.Errorf("asking firewalld for its state: %w", err)
	}
	if state.Value() != "RUNNING" {
		return fmt.Errorf("firewalld is %v", state.Value())
	}
	return nil
}

// Dnsmasq starts dnsmasq on a bridge as libvirt does: DHCP in the subnets of the
// bridge's addresses, DNS, and gateway as a name for these addresses. Further
// arguments come last.
func (h *Host) Dnsmasq(bridge string, args ...string) *Process {
	p, err := h.startDnsmasq(bridge, args)
	h.fail(err)
	return p
}

func (h *Host) startDnsmasq(bridge string, extra []string) (*Process, error) {
	if err := h.need("dnsmasq"); err != nil {
		return nil, err
	}
	addrs, err := h.addresses(bridge)
	if err != nil {
		return nil, err
	}
	state := "/run/dnsmasq-" + bridge
	args := []string{
		"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--strict-order", "--bind-dynamic",
		"--interface=" + bridge, "--except-interface=lo", "--dhcp-no-override", "--dhcp-authoritative",
		// Without this it pings each address for 3 s before it offers it.
		"--no-ping",
		"--no-hosts", "--no-resolv", "--user=root", "--log-facility=-",
		"--pid-file=" + state + ".pid", "--dhcp-leasefile=" + state + ".leases",
	}
	for _, addr := range addrs {
		args = append(args, "--host-record=gateway,"+addr.Addr().String(), "--dhcp-range="+dhcpRange(addr))
	}
	p := h.Start("dnsmasq "+bridge, append(args, extra...)...)
	return p, h.await(p, func(context.Context) error {
		if log := p.Log(); !strings.Contains(log, "started") {
			return errors.New("dnsmasq has not started yet")
		}
		return nil
	})
}

// dhcpRange returns what dnsmasq may lease in the subnet of an address of the host:
// for IPv4 all that follows the host's, for IPv6 libvirt's usual piece.
func dhcpRange(addr netip.Prefix) string {
	if addr.Addr().Is6() {
		base := addr.Masked().Addr().As16()
		first, last := base, base
		first[14], last[14], last[15] = 1, 1, 0xff
		return fmt.Sprintf("%s,%s,%d", netip.AddrFrom16(first), netip.AddrFrom16(last), addr.Bits())
	}
	base := addr.Masked().Addr().As4()
	last := base
	for bit := addr.Bits(); bit < 32; bit++ {
		last[bit/8] |= 1 << (7 - bit%8)
	}
	last[3]-- // the broadcast address
	return fmt.Sprintf("%s,%s", addr.Addr().Next(), netip.AddrFrom4(last))
}

// await calls ready until it returns nil, the program has ended or time is up.
func (h *Host) await(p *Process, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience())
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		if p != nil && !p.Running() {
			return fmt.Errorf("starting %s: it ended: %v; its output:\n%s", p.Name, p.err, p.Log())
		}
		select {
		case <-ctx.Done():
			if p != nil {
				return fmt.Errorf("starting %s: %w; its output:\n%s", p.Name, err, p.Log())
			}
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ReadFile reads a file of the host.
func (h *Host) ReadFile(path string) (data []byte, err error) {
	err = h.Inside(func() error {
		data, err = os.ReadFile(path)
		return err
	})
	return data, err
}

// WriteFile writes a file of the host; directories on the way are made.
func (h *Host) WriteFile(path string, data []byte, mode os.FileMode) error {
	return h.fill(path, mode, func(f *os.File) error { _, err := f.Write(data); return err })
}

// fill makes a file of the host, and the directories on the way.
func (h *Host) fill(path string, mode os.FileMode, write func(*os.File) error) error {
	return h.Inside(func() error {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
		if err != nil {
			return err
		}
		if err := errors.Join(write(f), f.Close()); err != nil {
			return err
		}
		return unix.Chmod(path, uint32(mode.Perm())) // past the umask
	})
}

// CopyIn copies a file of the machine, such as a program that was just built,
// to a path in the host.
func (h *Host) CopyIn(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copying into %s: %w", h.Name(), err)
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return fmt.Errorf("copying into %s: %w", h.Name(), err)
	}
	return h.fill(to, info.Mode(), func(f *os.File) error { return sendFile(f, source, info.Size()) })
}

// sendFile copies within the kernel: the race detector would look at each byte
// of a program on its way through this process, which takes longer than the
// copy.
func sendFile(to, from *os.File, size int64) error {
	for size > 0 {
		n, err := unix.Sendfile(int(to.Fd()), int(from.Fd()), nil, int(min(size, 1<<30)))
		if err != nil {
			return fmt.Errorf("copying %s: %w", from.Name(), err)
		}
		if n == 0 {
			return fmt.Errorf("copying %s: it ends early", from.Name())
		}
		size -= int64(n)
	}
	return nil
}
