package tests

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
)

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}

// stopFirewalld ends the running firewalld with a signal.
func (r *rig) stopFirewalld(sig syscall.Signal) {
	r.t.Helper()
	for _, p := range r.Processes() {
		if p.Name == "firewalld" && p.Running() {
			if err := p.Signal(sig); err != nil {
				r.t.Fatal(err)
			}
			<-p.Done()
		}
	}
}

func (r *rig) restartFirewalld(sig syscall.Signal) {
	r.t.Helper()
	r.stopFirewalld(sig)
	r.Firewalld("nftables")
}

// firewalldProperties are what the manager says of firewalld.
func (r *rig) firewalldProperties() (running bool, backend string, zones []string) {
	r.t.Helper()
	var all map[string]godbus.Variant
	r.must(r.Call(managerPath, propertiesName+".GetAll", managerName), &all)
	running, _ = all["FirewalldRunning"].Value().(bool)
	backend, _ = all["FirewalldBackend"].Value().(string)
	zones, _ = all["InstalledZones"].Value().([]string)
	return running, backend, zones
}

func (r *rig) wantFirewalld(wantRunning bool, wantBackend string, wantZones ...string) {
	r.t.Helper()
	running, backend, zones := r.firewalldProperties()
	if running != wantRunning || backend != wantBackend || !slices.Equal(zones, wantZones) {
		r.t.Errorf("the service says of firewalld: running %v, backend %q, zones %q", running, backend, zones)
	}
}

// TestFirewalldComesAndGoes: bindings are runtime only, so that firewalld
// forgets them each time, and the service puts them back.
func TestFirewalldComesAndGoes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.zoneFiles(allZones...)
	r.StartDaemon()
	f := r.Follow()
	addKinds(r, "")
	r.wantFirewalld(false, "")
	bound := func(when string) {
		t.Helper()
		for _, k := range kinds {
			r.awaitZone(k.name, "br-"+k.name, k.zone)
			if state, reason := r.State(k.name); state != "active" {
				t.Errorf("%s: %s is %s: %s", when, k.mode, state, reason)
			}
		}
		r.wantFirewalld(true, "nftables", allZones...)
	}
	told := func(when string, running bool) {
		t.Helper()
		heard := strings.Join(f.until("PropertiesChanged", "FirewalldRunning="), "\n")
		want := "PropertiesChanged FirewalldBackend= FirewalldRunning=false InstalledZones=[]"
		if running {
			want = "PropertiesChanged FirewalldBackend=nftables FirewalldRunning=true InstalledZones=[" + strings.Join(allZones, " ") + "]"
		}
		if !strings.HasSuffix(heard, want) {
			t.Errorf("%s was told as:\n%s\nwant %s", when, heard, want)
		}
	}
	r.Firewalld("nftables")
	bound("late start")
	told("late start", true)
	for _, args := range [][]string{{"--reload"}, {"--complete-reload"}} {
		r.Must(append([]string{"firewall-cmd"}, args...)...)
		bound(args[0])
	}
	for name, sig := range map[string]syscall.Signal{"end": syscall.SIGTERM, "kill -9": syscall.SIGKILL} {
		r.stopFirewalld(sig)
		told(name, false)
		r.wantFirewalld(false, "")
		if zone := r.Property("n", "BoundZone"); zone != "" {
			t.Errorf("%s: without firewalld the zone is %q", name, zone)
		}
		r.Firewalld("nftables")
		told("restart after "+name, true)
		bound("restart after " + name)
	}
	if table := r.Table(); !strings.Contains(table, "chain net_n_from") {
		t.Errorf("the rules are gone:\n%s", table)
	}
}

// TestServiceRestartsBesideFirewalld: a restart of the service keeps bindings,
// and one made while it was down is mended.
func TestServiceRestartsBesideFirewalld(t *testing.T) {
	t.Parallel()
	r := walledRig(t, allZones...)
	addKinds(r, "")
	r.KillDaemon()
	r.Must("firewall-cmd", "--reload") // nobody puts the bindings back
	if zone := r.zoneOf("br-n"); zone != "" {
		t.Errorf("firewalld's reload kept zone %q, so that this test shows nothing", zone)
	}
	r.StartDaemon()
	for _, k := range kinds {
		r.awaitZone(k.name, "br-"+k.name, k.zone)
	}
	r.StopDaemon()
	for _, k := range kinds {
		if zone := r.zoneOf("br-" + k.name); zone != k.zone {
			t.Errorf("while the service is down br-%s is in zone %q, want %q", k.name, zone, k.zone)
		}
	}
}

// TestAskedZoneWhileFirewalldIsAway: a network that names a zone says what is
// wrong while firewalld is away, and nothing once it is back.
func TestAskedZoneWhileFirewalldIsAway(t *testing.T) {
	t.Parallel()
	r := walledRig(t)
	r.Announce("state_code=zone-not-bound")
	r.Bridge("virbr0", natNet)
	r.must(r.AddXML(strings.Replace(netXML("default", "virbr0", "nat", natNet), "<bridge ", "<bridge zone='trusted' ", 1)))
	r.wantZone("default", "virbr0", "trusted")
	r.stopFirewalld(syscall.SIGTERM)
	r.AwaitState("default", "degraded")
	if _, reason := r.State("default"); !strings.Contains(reason, "firewalld is not running") || !strings.Contains(reason, "trusted") {
		t.Errorf("the reason is %s", reason)
	}
	r.must(r.Network("default", "Update", opts("TFTP", true), opts())) // it asks for nothing new
	r.Firewalld("nftables")
	r.AwaitState("default", "active")
	r.wantZone("default", "virbr0", "trusted")
}

func TestInstallAndRemoveZones(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.Announce("state_code=zone-")
	r.zoneFiles()
	r.StartDaemon()
	r.wantError(r.Manager("InstallZones", opts()), "FirewalldNotRunning")
	r.wantError(r.Manager("RemoveZones", opts()), "FirewalldNotRunning")
	r.Firewalld("nftables")
	f := r.Follow()
	addFiles := func() string {
		return r.Must("sh", "-c", "cd /etc/firewalld && find zones policies -name '*.xml' | sort")
	}
	bare := addFiles()

	// Somebody's runtime change, which a reload would lose.
	r.Must("firewall-cmd", "--zone=public", "--add-port=12345/tcp")
	before := r.Must("firewall-cmd", "--list-all-zones") + addFiles()
	call := r.Manager("InstallZones", opts())
	r.wantError(call, "ZonesNotInstalled")
	if call.Err == nil || !strings.Contains(call.Err.Error(), "12345") || !strings.Contains(call.Err.Error(), "public") {
		t.Errorf("the runtime change is not listed: %v", call.Err)
	}
	if diff := cmp.Diff(before, r.Must("firewall-cmd", "--list-all-zones")+addFiles()); diff != "" {
		t.Errorf("the refusal changed something:\n%s", diff)
	}
	var names []string
	r.must(r.Manager("InstallZones", opts("Force", true)), &names)
	if diff := cmp.Diff(allZones, sorted(names)); diff != "" {
		t.Error(diff)
	}
	r.wantFirewalld(true, "nftables", allZones...)
	f.until("InstalledZones=[libvirt ")
	r.must(r.Manager("InstallZones", opts()), &names)
	if len(names) != 0 {
		t.Errorf("installing again gave %q", names)
	}

	addKinds(r, "")
	r.wantError(r.Manager("RemoveZones", opts()), "ZonesNotInstalled")
	for _, k := range kinds {
		r.wantZone(k.name, "br-"+k.name, k.zone)
	}
	r.must(r.Manager("RemoveZones", opts("Unbind", true)), &names)
	if diff := cmp.Diff(allZones, sorted(names)); diff != "" {
		t.Error(diff)
	}
	r.wantFirewalld(true, "nftables")
	for _, k := range kinds {
		r.wantZone(k.name, "br-"+k.name, "")
		want := map[bool]string{true: "active", false: "degraded"}[k.mode == "open"]
		if state, reason := r.State(k.name); state != want {
			t.Errorf("without zones %s is %s: %s", k.mode, state, reason)
		}
	}
	if got := addFiles(); got != bare {
		t.Errorf("files of firewalld: before\n%s after\n%s", bare, got)
	}
	r.must(r.Manager("RemoveZones", opts()), &names)
	if len(names) != 0 {
		t.Errorf("removing again gave %q", names)
	}
}
