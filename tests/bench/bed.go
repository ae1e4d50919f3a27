package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/vishvananda/netlink"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

const (
	managerPath = godbus.ObjectPath("/org/virtfirewall/NetworkFirewall1")
	managerName = "org.virtfirewall.NetworkFirewall1"
	callTimeout = time.Minute
	storedIn    = "/etc/virtfirewalld/networks"
)

// bed is a throw-away host with a bus and the service's programs in it, and a
// warm connection to that bus.
type bed struct {
	*host.Host
	daemon *host.Process
	bus    *godbus.Conn
}

func newBed(bin string, cfg host.Config) (*bed, error) {
	cfg.Name = "bench"
	h, err := host.Create(context.Background(), cfg)
	if err != nil {
		return nil, err
	}
	b := &bed{Host: h}
	for from, to := range map[string]string{
		filepath.Join(bin, "virtfirewalld"): "/usr/sbin/virtfirewalld",
		"dbus/" + managerName + ".conf":     "/usr/share/dbus-1/system.d/" + managerName + ".conf",
	} {
		if err := h.CopyIn(from, to); err != nil {
			return nil, errors.Join(err, b.Close())
		}
	}
	h.Bus()
	if b.bus, err = h.DialBus(context.Background()); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// mostRemoval bounds how long Close waits for the kernel: on a machine with other work
// a link may never be read at once.
const mostRemoval = 20 * time.Second

// Close ends the host and all in it, and waits until the kernel is done with
// that: while it removes a thousand bridges, everything on the machine that
// asks for a link waits for seconds.
func (b *bed) Close() error {
	if b.bus != nil {
		b.bus.Close()
	}
	err := b.Host.Close()
	deadline := time.Now().Add(mostRemoval)
	for quick := 0; quick < 4 && time.Now().Before(deadline); quick++ {
		time.Sleep(250 * time.Millisecond)
		begin := time.Now()
		if _, linkErr := netlink.LinkByName("lo"); linkErr != nil {
			return errors.Join(err, linkErr)
		}
		if time.Since(begin) > 10*time.Millisecond {
			quick = -1
		}
	}
	return err
}

// withBed runs a measurement on a host of its own.
func withBed(bin string, measure func(*bed) error) error {
	return withBedOf(bin, host.Config{}, measure)
}

// withBedOf is withBed for a host that is configured.
func withBedOf(bin string, cfg host.Config, measure func(*bed) error) (err error) {
	b, err := newBed(bin, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	return measure(b)
}

// started is withBed with the service running.
func started(bin string, measure func(*bed) error) error {
	return withBed(bin, func(b *bed) error {
		if _, err := b.start(); err != nil {
			return err
		}
		return measure(b)
	})
}

// start starts the service and returns how long it took until it was ready, as
// systemd would know it, with its name on the bus.
func (b *bed) start(args ...string) (time.Duration, error) {
	const socket = "/run/bench-notify"
	var ready *net.UnixConn
	err := b.Inside(func() (err error) {
		_ = os.Remove(socket) // of an earlier start
		ready, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("listening for readiness: %w", err)
	}
	defer ready.Close()
	begin := time.Now()
	b.daemon = b.StartEnv("virtfirewalld", []string{"NOTIFY_SOCKET=" + socket}, append([]string{"/usr/sbin/virtfirewalld"}, args...)...)
	if err := awaitReady(ready); err != nil {
		return 0, fmt.Errorf("starting the service: %w\n%s", err, b.daemon.Log())
	}
	took := time.Since(begin)
	var taken bool
	if err := b.bus.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, managerName).Store(&taken); err != nil || !taken {
		return 0, errors.Join(errors.New("the service said that it was ready and is not on the bus"), err)
	}
	return took, nil
}

func awaitReady(from *net.UnixConn) error {
	message := make([]byte, 4096)
	_ = from.SetReadDeadline(time.Now().Add(callTimeout))
	for {
		n, err := from.Read(message)
		if err != nil {
			return err
		}
		if strings.Contains("\n"+string(message[:n]), "\nREADY=1") {
			return nil
		}
	}
}

// call calls a method of the manager.
func (b *bed) call(method string, args ...any) error {
	return b.callFor(nil, method, args...)
}

func (b *bed) callFor(into any, method string, args ...any) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	call := b.bus.Object(managerName, managerPath).CallWithContext(ctx, managerName+"."+method, 0, args...)
	if call.Err != nil || into == nil {
		return call.Err
	}
	return call.Store(into)
}

type options = map[string]godbus.Variant

var persistent = options{"Persistent": godbus.MakeVariant(true)}

func (b *bed) add(n network, o options) error {
	return b.addXML(n.xml(libvirtPort), o)
}

func (b *bed) addXML(xml string, o options) error { return b.call("AddNetworkFromXML", xml, o) }

func (b *bed) remove(n network, o options) error { return b.call("RemoveNetwork", n.name, o) }

// addRange adds networks from first up to but without last.
func (b *bed) addRange(first, last int) error {
	for i := first; i < last; i++ {
		if err := b.add(numbered(i), nil); err != nil {
			return fmt.Errorf("adding network %d: %w", i, err)
		}
	}
	return nil
}

// addBridges makes the bridges of the networks from first up to but without last.
func (b *bed) addBridges(first, last int) error {
	var lines strings.Builder
	for i := first; i < last; i++ {
		n := numbered(i)
		fmt.Fprintf(&lines, "link add %s type bridge\naddress add %s dev %s\nlink set %s up\n", n.bridge, n.subnet(), n.bridge, n.bridge)
	}
	_, err := b.RunInput(lines.String(), "ip", "-batch", "-")
	return err
}

// store writes the files of n persistent networks.
func (b *bed) store(n, firstPort int) error {
	return b.Inside(func() error {
		if err := os.MkdirAll(storedIn, 0o755); err != nil {
			return err
		}
		for i := range n {
			one := numbered(i)
			if err := os.WriteFile(filepath.Join(storedIn, one.name+".xml"), []byte(one.xml(firstPort)), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
}
