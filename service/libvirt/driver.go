// Package libvirt finds out what libvirt's network driver has: which networks it
// runs, and whether its daemon runs. It reads libvirt's own state files and connects
// to nothing, so that it starts no socket-activated daemon.
//
// It acts in the network namespace of the calling thread.
package libvirt

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// RunDir is where libvirt's network driver keeps its state.
const RunDir = "/run/libvirt/network"

type unixStat = syscall.Stat_t

// patience is how long a running libvirt may be starting or stopping a network
// without a status document: it writes the document after the rules and deletes it
// before them (170 ms and 265 ms were measured), and a hook of the administrator's
// may take longer in between.
const patience = 10 * time.Second

// Driver reads the state of libvirt's network driver. It is safe for concurrent use.
type Driver struct {
	dir      string
	patience time.Duration
	exists   func(iface string) (bool, error)
	serves   func(pid int) bool // whether a process is a dnsmasq

	mu        sync.Mutex
	documents map[string]document
	had       map[string]Network   // by bridge, the network that it last had
	without   map[string]time.Time // by bridge, since when it has had none
}

// New returns the driver that keeps its state in dir, see RunDir.
func New(dir string) *Driver {
	return &Driver{
		dir: dir, patience: patience, exists: interfaceExists, serves: isDnsmasq,
		had: make(map[string]Network), without: make(map[string]time.Time),
	}
}

// State is what libvirt has at a moment.
type State struct {
	// Running reports whether the daemon runs; Unit is its unit's name, as far as
	// known.
	Running bool
	Unit    string
	// Err is why it is unknown what libvirt has. Then nothing may be taken for left
	// behind.
	Err error

	driver   *Driver
	byBridge map[string]Network
	// starting reports whether there is a network whose dnsmasq libvirt runs already
	// or still, without a status document.
	starting bool
}

// State reads and returns the state. A nil driver is a host without libvirt.
func (d *Driver) State() State {
	if d == nil {
		return State{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	st := State{driver: d, byBridge: make(map[string]Network)}
	var errs []error
	docs, err := documents(d.dir, d.documents)
	if err == nil {
		d.documents = docs
	}
	errs = append(errs, err, problems(d.documents))
	for _, doc := range d.documents {
		if doc.err == nil && doc.network.Bridge != "" {
			st.byBridge[doc.network.Bridge] = doc.network
			d.had[doc.network.Bridge] = doc.network
			delete(d.without, doc.network.Bridge)
		}
	}
	var pid int
	if st.Running, pid, err = d.running(); err != nil {
		st.Running = true
		errs = append(errs, err)
	}
	st.Unit = unitOf(pid)
	st.starting = st.Running && d.starting()
	st.Err = errors.Join(errs...)
	return st
}

// Idle reports whether libvirt neither runs nor has any network: then it needs none
// of its chains, as it creates them when it starts.
func (s State) Idle() bool { return !s.Running && len(s.byBridge) == 0 && s.Err == nil }

// Of returns the network that libvirt has on a bridge.
func (s State) Of(bridge string) (Network, bool) {
	n, ok := s.byBridge[bridge]
	return n, ok
}

// MayStart reports whether libvirt may be starting a network on a bridge: it writes
// the status document when all else is done.
func (s State) MayStart(bridge string) bool {
	_, has := s.byBridge[bridge]
	return !has && (s.Running || s.Err != nil)
}

// Networks returns all networks that libvirt has, in the order of their bridges.
func (s State) Networks() []Network {
	var out []Network
	for _, bridge := range slices.Sorted(maps.Keys(s.byBridge)) {
		out = append(out, s.byBridge[bridge])
	}
	return out
}

// Beside returns the network that libvirt has on a bridge, or whose rules it may
// still be removing.
func (s State) Beside(bridge string) (Network, bool) {
	if n, ok := s.byBridge[bridge]; ok || s.driver == nil {
		return n, ok
	}
	left, _ := s.Left(bridge)
	s.driver.mu.Lock()
	defer s.driver.mu.Unlock()
	n, had := s.driver.had[bridge]
	if left {
		delete(s.driver.had, bridge)
		return Network{}, false
	}
	return n, had
}

// Left reports whether libvirt certainly does not use a bridge, so that rules of its
// kind for it are left behind; if it is uncertain, again is when to retry, 0 if
// something has to happen first.
func (s State) Left(bridge string) (left bool, again time.Duration) {
	if s.Err != nil {
		return false, 0
	}
	if _, has := s.byBridge[bridge]; has {
		return false, 0
	}
	if s.driver == nil {
		return true, 0
	}
	// libvirt creates a bridge before its rules and deletes it after them.
	exists, err := s.driver.exists(bridge)
	s.driver.mu.Lock()
	defer s.driver.mu.Unlock()
	if !s.Running || err == nil && !exists {
		delete(s.driver.without, bridge)
		return true, 0
	}
	if s.starting {
		delete(s.driver.without, bridge)
		return false, s.driver.patience
	}
	since, seen := s.driver.without[bridge]
	if !seen {
		since = time.Now()
		s.driver.without[bridge] = since
	}
	again = s.driver.patience - time.Since(since)
	return again <= 0, max(again, 0)
}

// running reports whether the daemon runs, which holds a lock while it does. One that
// systemd would start on demand does not run.
func (d *Driver) running() (running bool, pid int, err error) {
	f, err := os.Open(filepath.Join(d.dir, "driver.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, 0, nil
	}
	if err != nil {
		return false, 0, fmt.Errorf("looking whether libvirt runs: %w", err)
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return false, 0, fmt.Errorf("looking whether libvirt runs: %w", err)
	}
	return lock.Type != unix.F_UNLCK, int(lock.Pid), nil
}

// starting reports whether there is a dnsmasq whose network has no status document:
// an administrator's hook for a started network runs between the two and may take
// long.
func (d *Driver) starting() bool {
	files, err := filepath.Glob(filepath.Join(d.dir, "*.pid"))
	if err != nil {
		return false
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".pid")
		if _, has := d.documents[name+documentSuffix]; has || name == "driver" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 0 && d.serves(pid) {
			return true
		}
	}
	return false
}

func isDnsmasq(pid int) bool {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && strings.TrimSpace(string(comm)) == "dnsmasq"
}

// unitOf returns the daemon's unit: that of the process, or of the installed program.
func unitOf(pid int) string {
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); pid > 0 && err == nil {
		if name := strings.TrimSpace(string(comm)); name == "virtnetworkd" {
			return name
		}
		return "libvirtd"
	}
	if _, err := os.Stat("/usr/sbin/virtnetworkd"); err == nil {
		return "virtnetworkd"
	}
	return "libvirtd"
}

// interfaceExists asks the kernel.
func interfaceExists(name string) (bool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return false, nil // no interface can have such a name
	}
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request)
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	return err == nil, err
}
