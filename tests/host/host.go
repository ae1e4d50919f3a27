// Package host makes throw-away hosts: Linux namespaces over a copy-on-write
// view of the machine's own tree, or another, in which unmodified daemons run at their
// usual paths, with guests and uplinks around them, and packet probes between
// any two of these nodes.
//
// A host lives and dies with the process that made it, also when that process
// is killed. Nothing of it is visible by name outside: its namespaces are held
// by its own pid 1 and by open files only. The root network namespace, the
// machine's files and its global sysctls are never written.
//
// Create and the methods that return errors are for programs. Methods that
// return none report trouble to Config.Fail; New wires that to a test.
package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Config configures a host. The zero value is a plain host over the
// machine's own tree.
type Config struct {
	// Name is the host name inside; empty means "host". Names need not differ
	// between hosts.
	Name string
	// Root is the tree below the copy-on-write layer; empty means that which the
	// environment variable VIRTFIREWALLD_TEST_ROOT names, or /.
	Root string
	// Init is the command that runs as pid 1; empty means one that only waits.
	// A host ends when its pid 1 does.
	Init []string
	// Systemd boots the tree's systemd as pid 1, in the place of Init.
	Systemd *Systemd
	// Forwarding switches the IP forwarding sysctls on, which is otherwise left
	// to whoever is under test.
	Forwarding bool
	// Fail is called with errors of methods that return none. It must not
	// return. The default panics.
	Fail func(error)

	layer *os.File // the host's files of an earlier boot
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "host"
	}
	c.Root = cmp.Or(c.Root, os.Getenv("VIRTFIREWALLD_TEST_ROOT"), "/")
	if c.Systemd != nil {
		c.Init = append([]string{"/bin/sh", "-c", systemdInit, "init"}, c.Systemd.Units...)
	}
	if len(c.Init) == 0 {
		// With SIGCHLD ignored the kernel reaps orphans by itself, so that a
		// daemon that was killed does not stay behind as a zombie. By env: the
		// shell's trap leaves SIGCHLD as it is (dash 0.5.12).
		c.Init = []string{"/usr/bin/env", "--ignore-signal=CHLD", "cat"}
	}
	if c.Fail == nil {
		c.Fail = func(err error) { panic(err) }
	}
	return c
}

// Host is one throw-away host.
type Host struct {
	cfg   Config
	space *space
	group *cgroup
	leash *os.File // its closing, by us or by our death, ends the host
	guard *guard
	init  *Process

	mu        sync.Mutex
	closed    bool
	processes []*Process
	peers     map[string]*Peer
	subnets   []netip.Prefix // guest subnets, for uplinks made later
}

// Create makes a host; ctx bounds only the making. Close removes it.
func Create(ctx context.Context, cfg Config) (*Host, error) {
	cfg = cfg.withDefaults()
	if err := checkMachine(); err != nil {
		return nil, err
	}
	h := &Host{cfg: cfg, peers: map[string]*Peer{}}
	if err := h.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("making host %s: %w", cfg.Name, err), h.Close())
	}
	return h, nil
}

func (h *Host) start(ctx context.Context) error {
	group, err := newCgroup()
	if err != nil {
		return err
	}
	h.group = group
	leash, end, err := os.Pipe()
	if err != nil {
		return err
	}
	defer leash.Close()
	h.leash = end
	if h.guard, err = startGuard(leash, group); err != nil {
		return err
	}
	return h.bootTree(ctx, leash)
}

// bootTree makes the host's namespaces, and starts its pid 1 there.
func (h *Host) bootTree(ctx context.Context, leash *os.File) error {
	commands, err := h.group.commands(h.cfg.Systemd != nil)
	if err != nil {
		return err
	}
	h.space = &space{group: commands}
	err = onThread(func() error {
		layer, err := buildTree(h.cfg)
		if err != nil {
			return err
		}
		h.cfg.keep(layer)
		return h.boot(ctx, leash)
	})
	if err != nil || h.cfg.Systemd == nil {
		return err
	}
	return h.awaitBooted()
}

// Close ends everything inside the host and removes it. Later calls do nothing.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	processes, peers := h.processes, h.peers
	h.mu.Unlock()

	if h.leash != nil {
		h.leash.Close()
	}
	var errs []error
	if h.init != nil {
		_ = h.init.cmd.Process.Kill()
		errs = append(errs, waitClosed(h.init.Done(), "pid 1"))
	}
	for _, p := range processes {
		errs = append(errs, waitClosed(p.Done(), p.Name))
	}
	for _, p := range peers {
		p.space.close()
	}
	if h.space != nil {
		h.space.close()
	}
	h.cfg.keep(nil)
	if h.guard != nil {
		errs = append(errs, waitClosed(h.guard.done, "the host's guard"))
	}
	if h.group != nil {
		errs = append(errs, h.group.remove())
	}
	return errors.Join(errs...)
}

func waitClosed(done <-chan struct{}, what string) error {
	select {
	case <-done:
		return nil
	case <-time.After(patience()):
		return fmt.Errorf("removing a host: %s is still there after %s", what, patience())
	}
}

// Name returns the host's name.
func (h *Host) Name() string { return h.cfg.Name }

// PID returns the host's pid 1 as seen from outside.
func (h *Host) PID() int { return h.init.PID() }

// Path is where a file of the host is found from outside. An absolute symbolic
// link on the way leads out of the host: use ReadFile and WriteFile where there
// may be one.
func (h *Host) Path(path string) string {
	return filepath.Join("/proc", fmt.Sprint(h.PID()), "root", path)
}

// NetNS returns the path of the host's network namespace, for netlink handles.
func (h *Host) NetNS() string { return h.space.netPath() }

// Do runs fn on a thread inside the host's network namespace. Sockets that fn
// opens stay there.
func (h *Host) Do(fn func() error) error { return h.space.doNet(fn) }

// Inside runs fn on a thread inside the host's network and mount namespaces, so
// that files that it opens are the host's.
func (h *Host) Inside(fn func() error) error { return h.space.do(fn) }

func (h *Host) fail(err error) {
	if err != nil {
		h.cfg.Fail(fmt.Errorf("host %s: %w", h.cfg.Name, err))
	}
}
