package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/host"
	"github.com/virtfirewalld/virtfirewalld/service/iptables"
	"github.com/virtfirewalld/virtfirewalld/service/libvirt"
	"github.com/virtfirewalld/virtfirewalld/service/nftables"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

// flushTimeout is enough for a thousand networks with a firewalld that is slow
// to answer.
const flushTimeout = 5 * time.Minute

// flush removes what the service made outside of its persistent files. It runs
// the service and removes its networks, so that there is one way to remove them.
// Then it removes directly from the kernel what that left, or everything where
// the service cannot run. Each step is tried even if others fail.
func flush(ctx context.Context, o options, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	removing := removeNetworks(ctx, o, log)
	if errors.Is(removing, errServed) {
		return removing
	}
	return errors.Join(removing, removeRules(ctx, o, log), forget(o.runtimeDir))
}

// removeNetworks removes every network until the next start: the files in the
// configuration directory stay.
func removeNetworks(ctx context.Context, o options, log *slog.Logger) error {
	d, err := start(ctx, o, log)
	if err != nil {
		return err
	}
	// A service that has just started does not know which zones the bridges are
	// in, and would leave them there.
	_, err = d.service.Reapply(ctx)
	errs := []error{err}
	for _, n := range d.service.AllNetworks() {
		errs = append(errs, d.service.RemoveNetwork(ctx, n.Network.Name, service.ChangeOptions{}))
	}
	return errors.Join(append(errs, d.service.Pending(), d.close())...)
}

// removeRules removes the rules of both backends and those for DHCP checksums,
// and restores the handling of router advertisements.
func removeRules(ctx context.Context, o options, log *slog.Logger) error {
	begin := func(string) (none ruleset.Counters) { return none }
	record := filepath.Join(o.runtimeDir, "iptables")
	return errors.Join(
		removeNFTables(ctx, nftables.Config{Log: log, StartValues: begin}),
		removeIPTables(ctx, iptables.Config{Record: record, Log: log, StartValues: begin, Libvirt: libvirt.New(libvirt.RunDir).State}),
		forgetChecksums(ctx, log),
		restoreAdvertisements(ctx, o, log),
	)
}

func removeNFTables(ctx context.Context, c nftables.Config) error {
	kernel, err := nftables.Open(c)
	if err != nil {
		return err
	}
	if kernel.Probe(ctx) == nil { // else there can be no table
		err = kernel.RemoveAll(ctx)
	}
	return errors.Join(err, kernel.Close())
}

func removeIPTables(ctx context.Context, c iptables.Config) error {
	kernel, err := iptables.Open(c)
	if err != nil {
		return err
	}
	return kernel.RemoveAll(ctx)
}

func forgetChecksums(ctx context.Context, log *slog.Logger) error {
	links, err := watch.Start(ctx, watch.Config{Log: log})
	if err != nil {
		return err
	}
	return errors.Join(host.NewNeeds(links, log).FillChecksums(ctx, nil), links.Close())
}

func advertisementsDir(runtimeDir string) string { return filepath.Join(runtimeDir, "advertisements") }

// restoreAdvertisements makes bridges accept router advertisements as before.
func restoreAdvertisements(ctx context.Context, o options, log *slog.Logger) error {
	links, err := watch.Start(ctx, watch.Config{Log: log})
	if err != nil {
		return err
	}
	a, err := host.OpenAdvertisements(host.AdvertisementsConfig{Links: links, Proc: "/proc", Record: advertisementsDir(o.runtimeDir), Log: log})
	errs := []error{err}
	if err == nil {
		for _, index := range a.Silenced() {
			errs = append(errs, a.Restore(index))
		}
	}
	return errors.Join(append(errs, links.Close())...)
}

// forget removes what the service keeps until a reboot, by name: other programs
// may use the directory too.
func forget(runtimeDir string) error {
	var errs []error
	for _, name := range []string{"networks", "removed", "counters.json", "journal.json", "iptables", "advertisements", "zones", "leaving", "links",
		"kept", "counters.json.broken", "journal.json.broken"} {
		errs = append(errs, os.RemoveAll(filepath.Join(runtimeDir, name)))
	}
	return errors.Join(errs...)
}
