package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/dbus"
	"github.com/virtfirewalld/virtfirewalld/polkit"
	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/host"
	"github.com/virtfirewalld/virtfirewalld/service/iptables"
	"github.com/virtfirewalld/virtfirewalld/service/libvirt"
	"github.com/virtfirewalld/virtfirewalld/service/neighbour"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/nftables"
	"github.com/virtfirewalld/virtfirewalld/service/program"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
	"github.com/virtfirewalld/virtfirewalld/service/store"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
	"github.com/virtfirewalld/virtfirewalld/systemd"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

const (
	connectTimeout = 10 * time.Second
	startTimeout   = 90 * time.Second // systemd's own default for a start
	reloadTimeout  = 60 * time.Second
	goneTimeout    = time.Second
	gonePause      = 20 * time.Millisecond
)

// errServed means that another instance runs.
var errServed = errors.New(dbus.BusName + " is on the bus already: stop the other virtfirewalld first")

// daemon holds everything that runs.
type daemon struct {
	log     *slog.Logger
	bus     *dbus.Bus
	asking  *dbus.Bus // for polkit: calls that it leaves unanswered count only there
	links   *watch.Monitor
	tables  *watch.Tables
	rules   *nftables.Backend
	service *service.Service
	server  *dbus.Server
	changed chan struct{} // triggers followStatus
}

// start starts everything. The rules are in force before the first call is served.
func start(ctx context.Context, o options, log *slog.Logger) (*daemon, error) {
	d := &daemon{log: log, changed: make(chan struct{}, 1)}
	if err := d.assemble(ctx, o); err != nil {
		return nil, errors.Join(err, d.close())
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := d.service.Start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("starting: %w", err), d.close())
	}
	if err := d.server.Start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("serving the bus: %w", err), d.close())
	}
	return d, nil
}

func (d *daemon) assemble(ctx context.Context, o options) (err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	// The lasting netlink sockets come first: the library that encodes the
	// rules cannot use file descriptors of 1,024 and more.
	config := service.ConfigFiles{Dir: o.configDir, Libvirt: o.libvirtConf, State: o.stateDir}
	settings, _ := config.AtStart() // the service reports what cannot be used
	var totals *service.Totals
	begin := func(network string) ruleset.Counters { return totals.Of(network) }
	known := func() ruleset.Host { return service.HostInterfaces(d.links) }
	if d.rules, err = nftables.Open(nftables.Config{Owned: settings.OwnTable, Log: d.log, StartValues: begin, Host: known}); err != nil {
		return err
	}
	if d.bus, err = dbus.Connect(ctx, os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")); err != nil {
		return err
	}
	if d.asking, err = dbus.Connect(ctx, os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")); err != nil {
		return err
	}
	// Opening the files removes what looks left over, which may be another
	// instance's change in progress.
	if err := d.refuseOther(ctx); err != nil {
		return err
	}
	files, err := store.Open(store.Config{
		PersistentDir: filepath.Join(o.configDir, "networks"), RuntimeDir: o.runtimeDir, StateDir: o.stateDir, Parse: network.FromXML,
	})
	if err != nil {
		return err
	}
	kept, err := files.LoadCounters()
	if err != nil {
		d.log.Warn("counters begin anew", "error", err)
	}
	totals = service.NewTotals(kept)
	record := filepath.Join(o.runtimeDir, "iptables")
	started := &program.Started{}
	driver := libvirt.New(libvirt.RunDir)
	chains, err := iptables.Open(iptables.Config{Record: record, Log: d.log, StartValues: begin, Started: started, Libvirt: driver.State})
	if err != nil {
		return err
	}
	// The monitor lives as long as its context: until close.
	if d.links, err = watch.Start(context.Background(), watch.Config{Log: d.log}); err != nil {
		return err
	}
	advertisements, err := host.OpenAdvertisements(host.AdvertisementsConfig{Links: d.links, Proc: "/proc", Record: advertisementsDir(o.runtimeDir), Log: d.log})
	if err != nil {
		return err
	}
	if d.tables, err = watch.WatchTables(watch.TablesConfig{Own: d.rules.PortID(), Log: d.log}); err != nil {
		return err
	}
	own := d.tables.Subscribe(watch.TableID{Family: unix.NFPROTO_INET, Name: ruleset.TableName})
	firewalld := zones.New(d.bus.Conn(), d.log)
	d.service = service.New(version, service.Deps{
		Advertisements: advertisements,
		Backends:       &backend.Host{NFTables: d.rules, IPTables: chains},
		Chains:         service.HostChains{Tables: d.tables, Started: started, Log: d.log},
		Links:          d.links, Table: own, Zones: firewalld, Firewalld: firewalld, Files: files, Records: files, Leaving: files,
		Host: host.NewNeeds(d.links, d.log), Leftovers: neighbour.NewLeftovers(driver), Libvirt: driver,
		Foreign: neighbour.NewForeign(d.tables, d.log), Settings: config, Totals: totals, Log: d.log,
		Notify: func(e service.Event) { // from Start on, when there is a server
			d.server.Notify(e)
			d.triggerStatus()
		},
	})
	d.server, err = dbus.New(d.bus, d.service, dbus.NewGate(d.asking.Conn(), polkit.New(d.asking.Conn())), d.log)
	if err != nil {
		return err
	}
	return nil
}

// refuseOther fails if another instance serves this bus, before anything of that one's
// is changed. It waits up to goneTimeout for the bus to notice that an instance
// was killed.
func (d *daemon) refuseOther(ctx context.Context) error {
	for deadline := time.Now().Add(goneTimeout); ; {
		var taken bool
		call := d.bus.Conn().BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, dbus.BusName)
		if err := call.Store(&taken); err != nil {
			return fmt.Errorf("asking the bus who has %s: %w", dbus.BusName, err)
		}
		if !taken {
			return nil
		}
		if time.Now().After(deadline) {
			return errServed
		}
		time.Sleep(gonePause)
	}
}

// serve runs until a signal stops it or the connection to the bus is lost.
func (d *daemon) serve(signals <-chan os.Signal) error {
	d.logFailed(systemd.Ready(d.status()))
	ctx, stop := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	defer loops.Wait()
	defer stop()
	loops.Go(func() { d.logFailed(systemd.Watchdog(ctx, d.alive)) })
	loops.Go(func() { d.followStatus(ctx) })
	reloads := make(chan struct{}, 1) // one more may be requested during a reload
	loops.Go(func() { d.reloadWhenAsked(ctx, reloads) })
	for {
		select {
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				d.logFailed(systemd.Stopping())
				return nil
			}
			select {
			case reloads <- struct{}{}:
			default:
			}
		case <-d.bus.Conn().Context().Done():
			// godbus does not reconnect; the rules stay, and systemd starts
			// the service again with the bus.
			return errors.New("the connection to the bus was lost")
		}
	}
}

// reloadWhenAsked runs beside the loop that handles signals: firewalld may make a
// reload take long, and a stop must not wait for that.
func (d *daemon) reloadWhenAsked(ctx context.Context, asked <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
			d.reload(ctx)
		}
	}
}

func (d *daemon) reload(ctx context.Context) {
	d.log.Debug("told to reload")
	d.logFailed(systemd.Reloading())
	limited, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	err := d.service.Reload(limited)
	if ctx.Err() != nil {
		return // the next start reads everything
	}
	if err != nil {
		d.log.Error("reloading", "error", err)
	}
	d.logFailed(systemd.Ready(d.status()))
}

// alive reports whether the part of the service that makes changes is not stuck.
func (d *daemon) alive(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	return d.service.Alive(ctx)
}

// logFailed logs a failed notification of systemd, which is no reason to stop.
func (d *daemon) logFailed(err error) {
	if err != nil {
		d.log.Warn("talking to systemd", "error", err)
	}
}

// close ends everything, the server first and the bus last, and leaves the rules
// in force.
func (d *daemon) close() error {
	var errs []error
	if d.server != nil {
		d.server.Close()
	}
	if d.service != nil {
		errs = append(errs, d.service.Close())
	}
	if d.links != nil {
		errs = append(errs, d.links.Close())
	}
	if d.tables != nil {
		errs = append(errs, d.tables.Close())
	}
	if d.rules != nil {
		errs = append(errs, d.rules.Close())
	}
	if d.asking != nil {
		errs = append(errs, d.asking.Close())
	}
	if d.bus != nil {
		errs = append(errs, d.bus.Close())
	}
	return errors.Join(errs...)
}
