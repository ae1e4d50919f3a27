package firewalld

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestStopIsNoFailure: work that a stop interrupts is left to the next start,
// without a complaint in the log.
func TestStopIsNoFailure(t *testing.T) {
	t.Parallel()
	t.Run("putting rules back", func(t *testing.T) {
		t.Parallel()
		r := rig.New(t)
		r.Write(rig.ConfigFile, "own_table = false\n")
		r.StartDaemon("--log-level", "debug")
		for i := range 100 { // so that putting them back takes a while
			r.OK(r.AddXML(rig.Lasting(fmt.Sprint("net", i), i+1, "nat")))
		}
		whole := rig.TableLines(r.Host)
		r.Must("nft", "flush", "ruleset")
		r.Until("the service mends", func() bool { return strings.Contains(r.Daemon.Log(), "comparing it") })
		r.Restart(false)
		r.AwaitTable("restarted", whole)
	})
	t.Run("waiting for firewalld", func(t *testing.T) {
		t.Parallel()
		r := rig.WithFirewalld(t, rig.AllZones...)
		r.StopDaemon()
		r.Firewalld.Signal(syscall.SIGSTOP)
		r.StartDaemon()
		r.OK(r.AddXML(rig.NetXML("default", "virbr0", "open", rig.NatNet)))
		r.Restart(false)
		r.Firewalld.Signal(syscall.SIGCONT)
		r.OK(r.AddXML(rig.NetXML("routed", "virbr7", "nat", "10.7.0.1/24")))
		r.Firewalld.AwaitZone("routed", "virbr7", "libvirt")
	})
	t.Run("a call that waits for firewalld", func(t *testing.T) {
		t.Parallel()
		r, waiting := waitingRig(t)
		r.Restart(false)
		r.OK(answered(r, waiting)) // it named no zone: in force without one
		r.WantNames("restarted", "default", "old")
		r.Firewalld.Signal(syscall.SIGCONT)
		r.Firewalld.AwaitZone("old", "virbr7", "libvirt")
		r.Firewalld.AwaitZone("default", "virbr0", "libvirt")
	})
	t.Run("a reload that waits for firewalld", func(t *testing.T) {
		t.Parallel()
		r := rig.WithFirewalld(t, rig.AllZones...)
		r.StopDaemon()
		r.StartDaemon("--log-level", "debug")
		r.OK(r.AddXML(rig.NetXML("old", "virbr7", "nat", "10.7.0.1/24")))
		r.Firewalld.AwaitZone("old", "virbr7", "libvirt")
		r.Firewalld.Signal(syscall.SIGSTOP)
		rig.Must(t, r.Daemon.Signal(syscall.SIGHUP))
		r.Until("it reloads", func() bool { return strings.Contains(r.Daemon.Log(), "told to reload") })
		r.Announce(silenceAnnounced...) // where the reload gave up before the stop
		r.Restart(false)
		r.WantNames("restarted", "old")
		r.Firewalld.Signal(syscall.SIGCONT)
		r.Firewalld.AwaitZone("old", "virbr7", "libvirt")
	})
}
