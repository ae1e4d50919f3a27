package tests

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

const (
	networksDir = "/etc/virtfirewalld/networks"
	configFile  = "/etc/virtfirewalld/virtfirewalld.conf"
	runtimeDir  = "/run/virtfirewalld"
)

// lasting is a network to store: nobody needs its bridge.
func lasting(name string, number int, mode string) string {
	return netXML(name, fmt.Sprintf("virbr%d", number), mode, fmt.Sprintf("10.%d.0.1/24", number))
}

// names are the networks that the service has, sorted.
func (r *rig) names() []string {
	r.t.Helper()
	var paths []godbus.ObjectPath
	r.must(r.Manager("ListNetworks"), &paths)
	out := []string{}
	for _, p := range paths {
		out = append(out, path.Base(string(p)))
	}
	slices.Sort(out)
	return out
}

// wantNames checks which networks there are, on the bus and in the kernel.
func (r *rig) wantNames(when string, want ...string) {
	r.t.Helper()
	if got := r.names(); !slices.Equal(got, want) {
		r.t.Errorf("%s: networks %q, want %q", when, got, want)
	}
	table := r.Table()
	for _, name := range []string{"kept", "other", "runtime", "byhand"} {
		if in := strings.Contains(table, "chain net_"+name+"_from"); in != slices.Contains(want, name) {
			r.t.Errorf("%s: network %s in the kernel: %v", when, name, in)
		}
	}
}

// wantMode checks a network's mode, on the bus and in the kernel.
func (r *rig) wantMode(when, name, want string) {
	r.t.Helper()
	if got := r.Property(name, "ForwardMode"); got != want {
		r.t.Errorf("%s: network %s is %v, want %s", when, name, got, want)
	}
	if nat := strings.Contains(r.Table(), "chain net_"+name+"_nat"); nat != (want == "nat") {
		r.t.Errorf("%s: network %s is translated by the kernel: %v, and it is %s", when, name, nat, want)
	}
}

func (r *rig) write(file, text string) {
	r.t.Helper()
	if err := r.WriteFile(file, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// file is what a file of the host holds; "" for none.
func (r *rig) file(name string) string {
	data, err := r.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(data)
}

// restart ends the service in one of two ways and starts it again.
func (r *rig) restart(kill bool) {
	r.t.Helper()
	if kill {
		r.KillDaemon()
	} else {
		r.StopDaemon()
	}
	r.StartDaemon()
}

// reboot is what a reboot means to the service: its runtime folder and the
// kernel's rules are gone.
func (r *rig) reboot() {
	r.t.Helper()
	r.StopDaemon()
	r.Must("rm", "-rf", runtimeDir)
	r.Must("nft", "flush", "ruleset")
	r.StartDaemon()
}

// message is the text of a call's error.
func message(call *godbus.Call) string {
	var e godbus.Error
	if errors.As(call.Err, &e) && len(e.Body) > 0 {
		return fmt.Sprint(e.Body[0])
	}
	return fmt.Sprint(call.Err)
}

// wantRefusal checks an error's name and that its message has these words.
func (r *rig) wantRefusal(call *godbus.Call, name string, words ...string) {
	r.t.Helper()
	r.wantError(call, name)
	for _, word := range words {
		if !strings.Contains(message(call), word) {
			r.t.Errorf("%s: the message does not say %q: %s", name, word, message(call))
		}
	}
}

func TestKnownNamesAreTaken(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	r.must(r.AddXML(lasting("runtime", 1, "nat")))
	r.must(r.AddXML(lasting("kept", 2, "nat"), "Persistent", true))
	for name, number := range map[string]int{"runtime": 1, "kept": 2} {
		doc := lasting(name, number, "route")
		for _, persistent := range []bool{false, true} {
			r.wantRefusal(r.AddXML(doc, "Persistent", persistent), "NetworkExists", name, "Replace")
			settings := opts("Bridge", fmt.Sprintf("virbr%d", number), "ForwardMode", "route")
			r.wantRefusal(r.Manager("AddNetwork", name, settings, opts("Persistent", persistent)), "NetworkExists", name, "Replace")
		}
	}
	r.wantNames("after refusals", "kept", "runtime")
	for name, number := range map[string]int{"runtime": 1, "kept": 2} {
		r.must(r.AddXML(lasting(name, number, "route"), "Replace", true))
		r.wantMode("replaced", name, "route")
		if got := r.Property(name, "Persistent"); got != (name != "runtime") {
			t.Errorf("replaced without Persistent: %s is persistent: %v", name, got)
		}
	}
	r.restart(true)
	for _, name := range []string{"kept", "runtime"} {
		r.wantMode("after a restart", name, "route")
	}
	r.must(r.Manager("Reload"))
	r.wantMode("after Reload", "kept", "nat")
	r.wantMode("after Reload", "runtime", "route")
	r.reboot()
	r.wantNames("after a reboot", "kept")
	r.wantRefusal(r.Manager("RemoveNetwork", "runtime", opts()), "NetworkNotFound", "list")
}

// TestRemovedAndAddedAgain: a persistent network that was removed until the next
// Reload is added again as any other, by either method.
func TestRemovedAndAddedAgain(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	byXML := func(name string, number int, persistent bool) *godbus.Call {
		return r.AddXML(lasting(name, number, "route"), "Persistent", persistent)
	}
	bySettings := func(name string, number int, persistent bool) *godbus.Call {
		settings := opts("Bridge", fmt.Sprintf("virbr%d", number), "ForwardMode", "route", "Addresses", []string{fmt.Sprintf("10.%d.0.1/24", number)})
		return r.Manager("AddNetwork", name, settings, opts("Persistent", persistent))
	}
	add := map[string]func(name string, number int, persistent bool) *godbus.Call{"xml": byXML, "settings": bySettings}
	for way, again := range add {
		r.must(r.AddXML(lasting("returning", 1, "nat"), "Persistent", true))
		r.must(r.AddXML(lasting("lasting", 2, "nat"), "Persistent", true))
		r.must(r.Manager("RemoveNetwork", "returning", opts()))
		r.must(r.Manager("RemoveNetwork", "lasting", opts()))
		r.wantNames(way + ": removed")
		r.must(again("returning", 1, false))
		r.must(again("lasting", 2, true))
		r.wantMode(way+": added again", "returning", "route")
		if got := r.Property("returning", "Persistent"); got != true {
			t.Errorf("%s: a network with a file is persistent: %v", way, got)
		}
		r.restart(true)
		r.wantMode(way+": after a restart", "returning", "route")
		r.wantMode(way+": after a restart", "lasting", "route")
		r.must(r.Manager("Reload"))
		r.wantMode(way+": after Reload", "returning", "nat")
		r.wantMode(way+": after Reload", "lasting", "route")
		r.must(r.Manager("RemoveNetwork", "returning", opts("Persistent", true)))
		r.must(r.Manager("RemoveNetwork", "lasting", opts("Persistent", true)))
	}
}

// TestRuntimeChangesEnd: what is done to a persistent network without
// Persistent holds over restarts of the service, and ends at Reload and reboot.
func TestRuntimeChangesEnd(t *testing.T) {
	t.Parallel()
	changes := map[string]func(r *rig) *godbus.Call{
		"remove": func(r *rig) *godbus.Call { return r.Manager("RemoveNetwork", "kept", opts()) },
		"update": func(r *rig) *godbus.Call {
			return r.Network("kept", "Update", opts("ForwardMode", "isolated"), opts())
		},
		"replace": func(r *rig) *godbus.Call { return r.AddXML(lasting("kept", 1, "isolated"), "Replace", true) },
	}
	ends := map[string]func(r *rig){
		"reload": func(r *rig) { r.must(r.Manager("Reload")) },
		"reboot": func(r *rig) { r.reboot() },
	}
	for change, do := range changes {
		for end, finish := range ends {
			t.Run(change+", "+end, func(t *testing.T) {
				t.Parallel()
				r := startedRig(t)
				r.must(r.AddXML(lasting("kept", 1, "nat"), "Persistent", true))
				r.must(r.AddXML(lasting("other", 2, "nat"), "Persistent", true))
				before := r.file(networksDir + "/kept.xml")
				r.must(do(r))
				holds := func(when string) {
					t.Helper()
					if change == "remove" {
						r.wantNames(when, "other")
						return
					}
					r.wantNames(when, "kept", "other")
					r.wantMode(when, "kept", "isolated")
					if r.Property("kept", "Persistent") != true {
						t.Errorf("%s: a runtime change made the network a runtime one", when)
					}
				}
				holds("changed")
				r.restart(false)
				holds("after a restart")
				r.restart(true)
				holds("after a kill")
				if now := r.file(networksDir + "/kept.xml"); now != before || now == "" {
					t.Errorf("the runtime change changed the file:\n%s\n%s", before, now)
				}
				finish(r)
				r.wantNames("after the "+end, "kept", "other")
				r.wantMode("after the "+end, "kept", "nat")
				r.restart(true)
				r.wantMode("after the "+end+" and a kill", "kept", "nat")
			})
		}
	}
}

// TestPersistentChangesStay: with Persistent the file changes too.
func TestPersistentChangesStay(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	stays := func(when, name, mode string) {
		t.Helper()
		r.wantMode(when, name, mode)
		r.must(r.Manager("Reload"))
		r.wantMode(when+", reloaded", name, mode)
		r.reboot()
		r.wantMode(when+", rebooted", name, mode)
		if r.Property(name, "Persistent") != true {
			t.Errorf("%s: the network is not persistent", when)
		}
	}
	r.must(r.AddXML(lasting("kept", 1, "nat"), "Persistent", true))
	stays("added", "kept", "nat")
	r.must(r.Network("kept", "Update", opts("ForwardMode", "route"), opts("Persistent", true)))
	stays("updated", "kept", "route")
	r.must(r.AddXML(lasting("kept", 1, "isolated"), "Persistent", true, "Replace", true))
	stays("replaced", "kept", "isolated")
	r.must(r.Network("kept", "Update", opts("ForwardMode", "nat"), opts()))
	r.must(r.Network("kept", "Update", opts("DNS", false), opts("Persistent", true)))
	stays("runtime change made to last by a later one", "kept", "nat")
	r.must(r.AddXML(lasting("runtime", 2, "nat")))
	if r.Property("runtime", "Persistent") != false {
		t.Error("a runtime network is persistent")
	}
	r.must(r.Network("runtime", "Update", opts("ForwardMode", "route"), opts("Persistent", true)))
	stays("a runtime network made persistent", "runtime", "route")
	r.must(r.Manager("RemoveNetwork", "runtime", opts()))
	r.must(r.Manager("RemoveNetwork", "runtime", opts("Persistent", true)))
	r.must(r.Manager("RemoveNetwork", "kept", opts("Persistent", true)))
	if left := r.Must("ls", networksDir); left != "" {
		t.Errorf("files are left: %s", left)
	}
	r.must(r.Manager("Reload"))
	r.wantNames("removed for good")
	r.reboot()
	r.wantNames("removed for good, rebooted")
	if table := r.Table(); table != "" {
		t.Errorf("without networks there is a table:\n%s", table)
	}
}

// TestFilesAreWholeAtAnyMoment: whoever reads a file while it changes reads the
// old or the new document.
func TestFilesAreWholeAtAnyMoment(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	r.must(r.AddXML(lasting("kept", 1, "nat"), "Persistent", true))
	stop, bad := make(chan struct{}), make(chan error, 1)
	go func() { bad <- readOften(r.Host, networksDir+"/kept.xml", stop) }()
	for i := range 60 {
		mode := []string{"nat", "route", "isolated"}[i%3]
		r.must(r.Network("kept", "Update", opts("ForwardMode", mode), opts("Persistent", true)))
	}
	close(stop)
	if err := <-bad; err != nil {
		t.Error(err)
	}
	if files := r.Must("ls", "-A", networksDir); files != "kept.xml\n" {
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
	r, guest, internet := natRig(t)
	guarded(t, guest, internet, "governed")
	r.must(r.Manager("RemoveNetwork", "default", opts()))
	in := patient(internet, guest, host.Probe{Proto: host.TCP, To: at("192.168.122.10:0")})
	if !in.Reached {
		t.Errorf("after removal, from outside: %v", in)
	}
	out := patient(guest, internet, host.Probe{Proto: host.TCP, To: at("203.0.113.1:0")})
	if !out.Reached || out.Seen.Addr() != at("192.168.122.10:0").Addr() {
		t.Errorf("after removal, from the guest: %v", out)
	}
	if table := r.Table(); table != "" {
		t.Errorf("after removal there is a table:\n%s", table)
	}
}

func at(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }
