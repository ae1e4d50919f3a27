package tests

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// TestStopIsNoFailure: what the service was in the middle of when it was told to
// stop is the next start's, and nothing to complain of.
func TestStopIsNoFailure(t *testing.T) {
	t.Parallel()
	t.Run("putting rules back", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.write(configFile, "own_table = false\n")
		r.StartDaemon("--log-level", "debug")
		for i := range 100 { // so that putting them back takes a while
			r.must(r.AddXML(lasting(fmt.Sprint("net", i), i+1, "nat")))
		}
		whole := tableLines(r.Host)
		r.Must("nft", "flush", "ruleset")
		r.until("the service mends", func() bool { return strings.Contains(r.Daemon.Log(), "comparing it") })
		r.restart(false)
		r.awaitTable("restarted", whole)
	})
	t.Run("waiting for firewalld", func(t *testing.T) {
		t.Parallel()
		r := walledRig(t, allZones...)
		r.StopDaemon()
		r.signalFirewalld(syscall.SIGSTOP)
		r.StartDaemon()
		r.must(r.AddXML(netXML("default", "virbr0", "open", natNet)))
		r.restart(false)
		r.signalFirewalld(syscall.SIGCONT)
		r.must(r.AddXML(netXML("routed", "virbr7", "nat", "10.7.0.1/24")))
		r.awaitZone("routed", "virbr7", "libvirt")
	})
	t.Run("a call that waits for firewalld", func(t *testing.T) {
		t.Parallel()
		r, waiting := waitingRig(t)
		r.restart(false)
		r.must(r.answered(waiting)) // it named no zone: in force without one
		r.wantNames("restarted", "default", "old")
		r.signalFirewalld(syscall.SIGCONT)
		r.awaitZone("old", "virbr7", "libvirt")
		r.awaitZone("default", "virbr0", "libvirt")
	})
	t.Run("a reload that waits for firewalld", func(t *testing.T) {
		t.Parallel()
		r := walledRig(t, allZones...)
		r.StopDaemon()
		r.StartDaemon("--log-level", "debug")
		r.must(r.AddXML(netXML("old", "virbr7", "nat", "10.7.0.1/24")))
		r.awaitZone("old", "virbr7", "libvirt")
		r.signalFirewalld(syscall.SIGSTOP)
		if err := r.Daemon.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		r.until("it reloads", func() bool { return strings.Contains(r.Daemon.Log(), "told to reload") })
		r.Announce(silenceAnnounced...) // where the reload gave up before the stop
		r.restart(false)
		r.wantNames("restarted", "old")
		r.signalFirewalld(syscall.SIGCONT)
		r.awaitZone("old", "virbr7", "libvirt")
	})
}
