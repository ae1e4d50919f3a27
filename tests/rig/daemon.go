package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// StartDaemon starts the service and waits until its name is on the bus.
func (r *Rig) StartDaemon(args ...string) {
	r.T.Helper()
	r.Daemon = r.Start("virtfirewalld", append([]string{"/usr/sbin/virtfirewalld"}, args...)...)
	r.AwaitName(ManagerName)
}

// StopDaemon ends the service as systemd would.
func (r *Rig) StopDaemon() {
	r.T.Helper()
	if err := r.Daemon.Stop(); err != nil {
		r.T.Fatalf("stopping the service: %v\n%s", err, r.Daemon.Log())
	}
	r.awaitGone()
}

// KillDaemon ends the service with SIGKILL.
func (r *Rig) KillDaemon() {
	r.T.Helper()
	_ = r.Daemon.Kill() // its error is that it was killed
	r.awaitGone()
}

// Restart ends the service in one of two ways and starts it again.
func (r *Rig) Restart(kill bool) {
	r.T.Helper()
	if kill {
		r.KillDaemon()
	} else {
		r.StopDaemon()
	}
	r.StartDaemon()
}

// awaitGone waits until the bus has noticed that the service is gone: until then
// calls would be lost.
func (r *Rig) awaitGone() {
	r.T.Helper()
	for deadline := time.Now().Add(host.Patient(CallTimeout)); ; time.Sleep(time.Millisecond) {
		var there bool
		r.OK(r.Conn.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, ManagerName), &there)
		if !there {
			return
		}
		if time.Now().After(deadline) {
			r.T.Fatal("the service ended, and its name is still on the bus")
		}
	}
}

// Sleeps waits, and returns how often threads of the service ran in that time.
func (r *Rig) Sleeps(d time.Duration) int {
	r.T.Helper()
	before := r.Switches()
	time.Sleep(d)
	return r.Switches() - before
}

// Switches returns the context switches of all threads of the service.
func (r *Rig) Switches() (sum int) {
	r.T.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", r.Daemon.PID()))
	if err != nil || len(tasks) == 0 {
		r.T.Fatalf("the service has no threads: %v", err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		Must(r.T, err)
		for line := range strings.Lines(string(text)) {
			var n int
			if name, value, _ := strings.Cut(line, ":"); strings.HasSuffix(name, "voluntary_ctxt_switches") {
				_, _ = fmt.Sscan(value, &n)
				sum += n
			}
		}
	}
	return sum
}
