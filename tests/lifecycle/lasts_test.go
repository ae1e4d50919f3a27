package lifecycle

import (
	"fmt"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// wantMode checks a network's mode, on the bus and in the kernel.
func wantMode(r *rig.Rig, when, name, want string) {
	r.T.Helper()
	if got := r.Property(name, "ForwardMode"); got != want {
		r.T.Errorf("%s: network %s is %v, want %s", when, name, got, want)
	}
	if nat := rig.InSet(r.Table(), "translated4_name", name); nat != (want == "nat") {
		r.T.Errorf("%s: network %s is translated by the kernel: %v, and it is %s", when, name, nat, want)
	}
}

// reboot is what a reboot means to the service: its runtime folder and the
// kernel's rules are gone.
func reboot(r *rig.Rig) {
	r.T.Helper()
	r.StopDaemon()
	r.Must("rm", "-rf", rig.RuntimeDir)
	r.Must("nft", "flush", "ruleset")
	r.StartDaemon()
}

func TestKnownNamesAreTaken(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.OK(r.AddXML(rig.Lasting("runtime", 1, "nat")))
	r.OK(r.AddXML(rig.Lasting("kept", 2, "nat"), "Persistent", true))
	for name, number := range map[string]int{"runtime": 1, "kept": 2} {
		doc := rig.Lasting(name, number, "route")
		for _, persistent := range []bool{false, true} {
			r.WantRefusal(r.AddXML(doc, "Persistent", persistent), "NetworkExists", name, "Replace")
			settings := rig.Opts("Bridge", fmt.Sprintf("virbr%d", number), "ForwardMode", "route")
			r.WantRefusal(r.Manager("AddNetwork", name, settings, rig.Opts("Persistent", persistent)), "NetworkExists", name, "Replace")
		}
	}
	r.WantNames("after refusals", "kept", "runtime")
	for name, number := range map[string]int{"runtime": 1, "kept": 2} {
		r.OK(r.AddXML(rig.Lasting(name, number, "route"), "Replace", true))
		wantMode(r, "replaced", name, "route")
		if got := r.Property(name, "Persistent"); got != (name != "runtime") {
			t.Errorf("replaced without Persistent: %s is persistent: %v", name, got)
		}
	}
	r.Restart(true)
	for _, name := range []string{"kept", "runtime"} {
		wantMode(r, "after a restart", name, "route")
	}
	r.OK(r.Manager("Reload"))
	wantMode(r, "after Reload", "kept", "nat")
	wantMode(r, "after Reload", "runtime", "route")
	reboot(r)
	r.WantNames("after a reboot", "kept")
	r.WantRefusal(r.Manager("RemoveNetwork", "runtime", rig.Opts()), "NetworkNotFound", "list")
}

// TestRemovedAndAddedAgain: a persistent network that was removed until the next
// Reload is added again as any other, by either method.
func TestRemovedAndAddedAgain(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	byXML := func(name string, number int, persistent bool) *godbus.Call {
		return r.AddXML(rig.Lasting(name, number, "route"), "Persistent", persistent)
	}
	bySettings := func(name string, number int, persistent bool) *godbus.Call {
		settings := rig.Opts("Bridge", fmt.Sprintf("virbr%d", number), "ForwardMode", "route", "Addresses", []string{fmt.Sprintf("10.%d.0.1/24", number)})
		return r.Manager("AddNetwork", name, settings, rig.Opts("Persistent", persistent))
	}
	add := map[string]func(name string, number int, persistent bool) *godbus.Call{"xml": byXML, "settings": bySettings}
	for way, again := range add {
		r.OK(r.AddXML(rig.Lasting("returning", 1, "nat"), "Persistent", true))
		r.OK(r.AddXML(rig.Lasting("lasting", 2, "nat"), "Persistent", true))
		r.OK(r.Manager("RemoveNetwork", "returning", rig.Opts()))
		r.OK(r.Manager("RemoveNetwork", "lasting", rig.Opts()))
		r.WantNames(way + ": removed")
		r.OK(again("returning", 1, false))
		r.OK(again("lasting", 2, true))
		wantMode(r, way+": added again", "returning", "route")
		if got := r.Property("returning", "Persistent"); got != true {
			t.Errorf("%s: a network with a file is persistent: %v", way, got)
		}
		r.Restart(true)
		wantMode(r, way+": after a restart", "returning", "route")
		wantMode(r, way+": after a restart", "lasting", "route")
		r.OK(r.Manager("Reload"))
		wantMode(r, way+": after Reload", "returning", "nat")
		wantMode(r, way+": after Reload", "lasting", "route")
		r.OK(r.Manager("RemoveNetwork", "returning", rig.Opts("Persistent", true)))
		r.OK(r.Manager("RemoveNetwork", "lasting", rig.Opts("Persistent", true)))
	}
}

// TestRuntimeChangesEnd: what is done to a persistent network without
// Persistent holds over restarts of the service, and ends at Reload and reboot.
func TestRuntimeChangesEnd(t *testing.T) {
	t.Parallel()
	changes := map[string]func(r *rig.Rig) *godbus.Call{
		"remove": func(r *rig.Rig) *godbus.Call { return r.Manager("RemoveNetwork", "kept", rig.Opts()) },
		"update": func(r *rig.Rig) *godbus.Call {
			return r.Network("kept", "Update", rig.Opts("ForwardMode", "isolated"), rig.Opts())
		},
		"replace": func(r *rig.Rig) *godbus.Call { return r.AddXML(rig.Lasting("kept", 1, "isolated"), "Replace", true) },
	}
	ends := map[string]func(r *rig.Rig){
		"reload": func(r *rig.Rig) { r.OK(r.Manager("Reload")) },
		"reboot": func(r *rig.Rig) { reboot(r) },
	}
	for change, do := range changes {
		for end, finish := range ends {
			t.Run(change+", "+end, func(t *testing.T) {
				t.Parallel()
				r := rig.Started(t)
				r.OK(r.AddXML(rig.Lasting("kept", 1, "nat"), "Persistent", true))
				r.OK(r.AddXML(rig.Lasting("other", 2, "nat"), "Persistent", true))
				before := r.File(rig.NetworksDir + "/kept.xml")
				r.OK(do(r))
				holds := func(when string) {
					t.Helper()
					if change == "remove" {
						r.WantNames(when, "other")
						return
					}
					r.WantNames(when, "kept", "other")
					wantMode(r, when, "kept", "isolated")
					if r.Property("kept", "Persistent") != true {
						t.Errorf("%s: a runtime change made the network a runtime one", when)
					}
				}
				holds("changed")
				r.Restart(false)
				holds("after a restart")
				r.Restart(true)
				holds("after a kill")
				now := r.File(rig.NetworksDir + "/kept.xml")
				if now == "" {
					t.Error("the runtime change took the file")
				}
				rig.Same(t, "the file after a runtime change", before, now)
				finish(r)
				r.WantNames("after the "+end, "kept", "other")
				wantMode(r, "after the "+end, "kept", "nat")
				r.Restart(true)
				wantMode(r, "after the "+end+" and a kill", "kept", "nat")
			})
		}
	}
}

// TestPersistentChangesStay: with Persistent the file changes too.
func TestPersistentChangesStay(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	stays := func(when, name, mode string) {
		t.Helper()
		wantMode(r, when, name, mode)
		r.OK(r.Manager("Reload"))
		wantMode(r, when+", reloaded", name, mode)
		reboot(r)
		wantMode(r, when+", rebooted", name, mode)
		if r.Property(name, "Persistent") != true {
			t.Errorf("%s: the network is not persistent", when)
		}
	}
	r.OK(r.AddXML(rig.Lasting("kept", 1, "nat"), "Persistent", true))
	stays("added", "kept", "nat")
	r.OK(r.Network("kept", "Update", rig.Opts("ForwardMode", "route"), rig.Opts("Persistent", true)))
	stays("updated", "kept", "route")
	r.OK(r.AddXML(rig.Lasting("kept", 1, "isolated"), "Persistent", true, "Replace", true))
	stays("replaced", "kept", "isolated")
	r.OK(r.Network("kept", "Update", rig.Opts("ForwardMode", "nat"), rig.Opts()))
	r.OK(r.Network("kept", "Update", rig.Opts("DNS", false), rig.Opts("Persistent", true)))
	stays("runtime change made to last by a later one", "kept", "nat")
	r.OK(r.AddXML(rig.Lasting("runtime", 2, "nat")))
	if r.Property("runtime", "Persistent") != false {
		t.Error("a runtime network is persistent")
	}
	r.OK(r.Network("runtime", "Update", rig.Opts("ForwardMode", "route"), rig.Opts("Persistent", true)))
	stays("a runtime network made persistent", "runtime", "route")
	r.OK(r.Manager("RemoveNetwork", "runtime", rig.Opts()))
	r.OK(r.Manager("RemoveNetwork", "runtime", rig.Opts("Persistent", true)))
	r.OK(r.Manager("RemoveNetwork", "kept", rig.Opts("Persistent", true)))
	if left := r.Must("ls", rig.NetworksDir); left != "" {
		t.Errorf("files are left: %s", left)
	}
	r.OK(r.Manager("Reload"))
	r.WantNames("removed for good")
	reboot(r)
	r.WantNames("removed for good, rebooted")
	if table := r.Table(); table != "" {
		t.Errorf("without networks there is a table:\n%s", table)
	}
}

// TestFilesAreWholeAtAnyMoment: whoever reads a file while it changes reads the
// old or the new document.
func TestFilesAreWholeAtAnyMoment(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.OK(r.AddXML(rig.Lasting("kept", 1, "nat"), "Persistent", true))
	stop, bad := make(chan struct{}), make(chan error, 1)
	go func() { bad <- readOften(r.Host, rig.NetworksDir+"/kept.xml", stop) }()
	for i := range 60 {
		mode := []string{"nat", "route", "isolated"}[i%3]
		r.OK(r.Network("kept", "Update", rig.Opts("ForwardMode", mode), rig.Opts("Persistent", true)))
	}
	close(stop)
	if err := <-bad; err != nil {
		t.Error(err)
	}
	if files := r.Must("ls", "-A", rig.NetworksDir); files != "kept.xml\n" {
		t.Errorf("files are left: %q", files)
	}
}

func readOften(h *host.Host, file string, stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		text, err := h.ReadFile(file)
		if err != nil {
			return err
		}
		if n, err := network.FromXML(text); err != nil || n.Name != "kept" {
			return fmt.Errorf("a reader got %q: %w", text, err)
		}
	}
}

// TestRemovedMeansNotGoverned: the bridge's traffic is then as the host's other
// rules have it.
func TestRemovedMeansNotGoverned(t *testing.T) {
	t.Parallel()
	r, guest, internet := rig.WithNAT(t)
	rig.Guarded(t, guest, internet, "governed")
	r.OK(r.Manager("RemoveNetwork", "default", rig.Opts()))
	in := rig.TryPatiently(internet, guest, host.Probe{Proto: host.TCP, To: rig.At("192.168.122.10:0")})
	if !in.Reached {
		t.Errorf("after removal, from outside: %v", in)
	}
	out := rig.TryPatiently(guest, internet, host.Probe{Proto: host.TCP, To: rig.At("203.0.113.1:0")})
	if !out.Reached || out.Seen.Addr() != rig.At("192.168.122.10:0").Addr() {
		t.Errorf("after removal, from the guest: %v", out)
	}
	if table := r.Table(); table != "" {
		t.Errorf("after removal there is a table:\n%s", table)
	}
}
