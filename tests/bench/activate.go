package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

const (
	activations = 20
	mostReady   = 100 * time.Millisecond
	unitName    = "virtfirewalld.service"
)

// measureActivation has a systemd start the service, by itself and for a call
// that comes over the bus.
func measureActivation(bin string, s *section) error {
	s.title = fmt.Sprintf("Activation with %d persistent networks", few)
	s.how = fmt.Sprintf("In hosts with systemd as pid 1 and the unit as it is shipped; the bridges are there, the rules are not. Ready is from when systemd begins to start the unit to READY=1, "+
		"by its own time stamps. The call is ListNetworks while the service is stopped, from its start to its answer, by a client that is connected. %d of each.", activations)
	for _, backend := range []string{"nftables", "iptables"} {
		if err := activated(bin, backend, s); err != nil {
			return fmt.Errorf("with %s: %w", backend, err)
		}
	}
	return nil
}

func activated(bin, backend string, s *section) (err error) {
	h, err := host.Create(context.Background(), host.Config{Name: "bench", Systemd: &host.Systemd{}})
	if err != nil {
		return err
	}
	b := &bed{Host: h}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := b.installUnit(bin, backend); err != nil {
		return err
	}
	if b.bus, err = h.DialBus(context.Background()); err != nil {
		return err
	}
	var started, called, answered times
	for range activations {
		start := func() error { _, err := b.Run("systemctl", "start", unitName); return err }
		if err := b.activate(start, &started, new(times)); err != nil {
			return err
		}
		if err := b.activate(func() error { return b.call("ListNetworks") }, &called, &answered); err != nil {
			return err
		}
	}
	limit := milliseconds(mostReady)
	s.limit(backend+": systemctl start to ready", started.String(), limit, started.median() <= mostReady)
	s.limit(backend+": a call's activation to ready", called.String(), limit, called.median() <= mostReady)
	s.limit(backend+": the call", answered.String(), limit, answered.median() <= mostReady)
	return nil
}

// installUnit installs what the service needs.
func (b *bed) installUnit(bin, backend string) error {
	unit, err := os.ReadFile("systemd/" + unitName)
	if err != nil {
		return err
	}
	text := strings.ReplaceAll(string(unit), "@SBINDIR@", "/usr/sbin")
	errs := []error{
		b.CopyIn(filepath.Join(bin, "virtfirewalld"), "/usr/sbin/virtfirewalld"),
		b.CopyIn("dbus/"+managerName+".conf", "/usr/share/dbus-1/system.d/"+managerName+".conf"),
		b.CopyIn("dbus/"+managerName+".service", "/usr/share/dbus-1/system-services/"+managerName+".service"),
		b.CopyIn("systemd/virtfirewalld.tmpfiles.conf", "/usr/lib/tmpfiles.d/virtfirewalld.conf"),
		b.WriteFile("/usr/lib/systemd/system/"+unitName, []byte(text), 0o644),
		b.store(few, libvirtPort),
		b.WriteFile("/etc/virtfirewalld/virtfirewalld.conf", []byte(fmt.Sprintf("firewall_backend = %q\n", backend)), 0o644),
		b.addBridges(0, few),
	}
	for _, command := range []string{"systemd-tmpfiles --create", "systemctl daemon-reload", "systemctl --quiet enable " + unitName, "systemctl reload dbus.service"} {
		_, err := b.Run(strings.Fields(command)...)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// activate starts a service that is stopped, with nothing in the kernel.
func (b *bed) activate(start func() error, ready, whole *times) error {
	const clear = "systemctl stop " + unitName + " && systemctl reset-failed; nft flush ruleset"
	if _, err := b.Run("sh", "-c", clear); err != nil {
		return err
	}
	begin := time.Now()
	if err := start(); err != nil {
		return err
	}
	*whole = append(*whole, time.Since(begin))
	took, err := b.tookToReady()
	*ready = append(*ready, took)
	return err
}

// tookToReady returns how long the last start took. A call may be answered before
// systemd has read that the service is ready.
func (b *bed) tookToReady() (time.Duration, error) {
	for deadline := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		out, err := b.Run("systemctl", "show", "--value", "--property=InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic", unitName)
		if err != nil {
			return 0, err
		}
		var from, to time.Duration
		if _, err := fmt.Sscan(out, &from, &to); err != nil {
			return 0, fmt.Errorf("reading systemd's time stamps %q: %w", out, err)
		}
		if from != 0 && to > from {
			return (to - from) * time.Microsecond, nil
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("the service started at %d and was not ready after it, but at %d", from, to)
		}
	}
}
