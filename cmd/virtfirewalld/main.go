// Command virtfirewalld is the system service that manages the firewall of
// virtual networks.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/virtfirewalld/virtfirewalld/systemd"
)

// version is set by the build.
var version = "0.1.0-dev"

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "virtfirewalld:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	configDir, libvirtConf, stateDir, runtimeDir string
	level                                        slog.Level
	version, flush                               bool
}

func parse(args []string, out io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("virtfirewalld", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&o.configDir, "config-dir", "/etc/virtfirewalld", "directory of virtfirewalld.conf and of the persistent networks")
	f.StringVar(&o.libvirtConf, "libvirt-conf", "/etc/libvirt/network.conf", "libvirt's network configuration")
	f.StringVar(&o.stateDir, "state-dir", fallback(os.Getenv("STATE_DIRECTORY"), "/var/lib/virtfirewalld"), "directory of state that survives a reboot")
	f.StringVar(&o.runtimeDir, "runtime-dir", fallback(os.Getenv("RUNTIME_DIRECTORY"), "/run/virtfirewalld"), "directory of state that a reboot removes")
	f.TextVar(&o.level, "log-level", slog.LevelInfo, "debug, info, warn or error")
	f.BoolVar(&o.flush, "flush", false, "remove all rules and runtime networks while the service is stopped, and exit")
	f.BoolVar(&o.version, "version", false, "print the version and exit")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: see virtfirewalld --help", f.Arg(0))
	}
	return o, nil
}

func fallback(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	// systemd sets a list where the unit names several directories.
	return filepath.SplitList(value)[0]
}

func run(args []string, out io.Writer) error {
	o, err := parse(args, out)
	if err != nil {
		return err
	}
	if o.version {
		_, err := fmt.Fprintln(out, "virtfirewalld", version)
		return err
	}
	log := slog.New(systemd.NewHandler(os.Stderr, o.level))
	if o.flush {
		return flush(context.Background(), o, log)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	d, err := start(context.Background(), o, log)
	if err != nil {
		return err
	}
	serving := d.serve(signals)
	return errors.Join(serving, d.close())
}
