package firewalld

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// firewalldProperties returns the manager's properties about firewalld.
func firewalldProperties(r *rig.Rig) (running bool, backend string, zones []string) {
	r.T.Helper()
	var all map[string]godbus.Variant
	r.OK(r.Call(rig.ManagerPath, rig.PropertiesName+".GetAll", rig.ManagerName), &all)
	running, _ = all["FirewalldRunning"].Value().(bool)
	backend, _ = all["FirewalldBackend"].Value().(string)
	zones, _ = all["InstalledZones"].Value().([]string)
	return running, backend, zones
}

func wantFirewalld(r *rig.Rig, wantRunning bool, wantBackend string, wantZones ...string) {
	r.T.Helper()
	running, backend, zones := firewalldProperties(r)
	if running != wantRunning || backend != wantBackend || !slices.Equal(zones, wantZones) {
		r.T.Errorf("the service says of firewalld: running %v, backend %q, zones %q", running, backend, zones)
	}
}

// TestFirewalldComesAndGoes: bindings are runtime only, so that firewalld
// forgets them each time, and the service puts them back.
func TestFirewalldComesAndGoes(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Firewalld.SetZones(rig.AllZones...)
	r.StartDaemon()
	f := r.Follow()
	addKinds(r, "")
	wantFirewalld(r, false, "")
	bound := func(when string) {
		t.Helper()
		for _, k := range kinds {
			r.Firewalld.AwaitZone(k.name, "br-"+k.name, k.zone)
			if state, reason := r.State(k.name); state != "active" {
				t.Errorf("%s: %s is %s: %s", when, k.mode, state, reason)
			}
		}
		wantFirewalld(r, true, "nftables", rig.AllZones...)
	}
	told := func(when string, running bool) {
		t.Helper()
		heard := strings.Join(f.Until("PropertiesChanged", "FirewalldRunning="), "\n")
		want := "PropertiesChanged FirewalldBackend= FirewalldRunning=false InstalledZones=[]"
		if running {
			want = "PropertiesChanged FirewalldBackend=nftables FirewalldRunning=true InstalledZones=[" + strings.Join(rig.AllZones, " ") + "]"
		}
		if !strings.HasSuffix(heard, want) {
			t.Errorf("%s was told as:\n%s\nwant %s", when, heard, want)
		}
	}
	r.Firewalld.Start("nftables")
	bound("late start")
	told("late start", true)
	for _, args := range [][]string{{"--reload"}, {"--complete-reload"}} {
		r.Must(append([]string{"firewall-cmd"}, args...)...)
		bound(args[0])
	}
	for name, sig := range map[string]syscall.Signal{"end": syscall.SIGTERM, "kill -9": syscall.SIGKILL} {
		r.Firewalld.Stop(sig)
		told(name, false)
		wantFirewalld(r, false, "")
		if zone := r.Property("n", "BoundZone"); zone != "" {
			t.Errorf("%s: without firewalld the zone is %q", name, zone)
		}
		r.Firewalld.Start("nftables")
		told("restart after "+name, true)
		bound("restart after " + name)
	}
	if table := r.Table(); !rig.InTable(table, "n") {
		t.Errorf("the rules are gone:\n%s", table)
	}
}

// TestServiceRestartsBesideFirewalld: a restart of the service keeps bindings,
// and corrects one that was made while it was down.
func TestServiceRestartsBesideFirewalld(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t, rig.AllZones...)
	addKinds(r, "")
	r.KillDaemon()
	r.Must("firewall-cmd", "--reload") // nobody puts the bindings back
	if zone := r.Firewalld.ZoneOf("br-n"); zone != "" {
		t.Errorf("firewalld's reload kept zone %q, so that this test shows nothing", zone)
	}
	r.StartDaemon()
	for _, k := range kinds {
		r.Firewalld.AwaitZone(k.name, "br-"+k.name, k.zone)
	}
	r.StopDaemon()
	for _, k := range kinds {
		if zone := r.Firewalld.ZoneOf("br-" + k.name); zone != k.zone {
			t.Errorf("while the service is down br-%s is in zone %q, want %q", k.name, zone, k.zone)
		}
	}
}

// TestAskedZoneWhileFirewalldIsAway: a network that names a zone reports what is
// wrong while firewalld is away, and nothing once it is back.
func TestAskedZoneWhileFirewalldIsAway(t *testing.T) {
	t.Parallel()
	r := rig.WithFirewalld(t)
	r.Announce("state_code=zone-not-bound")
	r.Bridge("virbr0", rig.NatNet)
	r.OK(r.AddXML(strings.Replace(rig.NetXML("default", "virbr0", "nat", rig.NatNet), "<bridge ", "<bridge zone='trusted' ", 1)))
	r.Firewalld.WantZone("default", "virbr0", "trusted")
	r.Firewalld.Stop(syscall.SIGTERM)
	r.AwaitState("default", "degraded")
	if _, reason := r.State("default"); !strings.Contains(reason, "firewalld is not running") || !strings.Contains(reason, "trusted") {
		t.Errorf("the reason is %s", reason)
	}
	r.OK(r.Network("default", "Update", rig.Opts("TFTP", true), rig.Opts())) // it asks for nothing new
	r.Firewalld.Start("nftables")
	r.AwaitState("default", "active")
	r.Firewalld.WantZone("default", "virbr0", "trusted")
}

func TestInstallAndRemoveZones(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Announce("state_code=zone-")
	r.Firewalld.SetZones()
	r.StartDaemon()
	r.WantError(r.Manager("InstallZones", rig.Opts()), "FirewalldNotRunning")
	r.WantError(r.Manager("RemoveZones", rig.Opts()), "FirewalldNotRunning")
	r.Firewalld.Start("nftables")
	f := r.Follow()
	addFiles := func() string {
		return r.Must("sh", "-c", "cd /etc/firewalld && find zones policies -name '*.xml' | sort")
	}
	bare := addFiles()

	// Somebody's runtime change, which a reload would lose.
	r.Must("firewall-cmd", "--zone=public", "--add-port=12345/tcp")
	before := r.Must("firewall-cmd", "--list-all-zones") + addFiles()
	call := r.Manager("InstallZones", rig.Opts())
	r.WantError(call, "ZonesNotInstalled")
	if call.Err == nil || !strings.Contains(call.Err.Error(), "12345") || !strings.Contains(call.Err.Error(), "public") {
		t.Errorf("the runtime change is not listed: %v", call.Err)
	}
	if diff := cmp.Diff(before, r.Must("firewall-cmd", "--list-all-zones")+addFiles()); diff != "" {
		t.Errorf("the refusal changed something:\n%s", diff)
	}
	var names []string
	r.OK(r.Manager("InstallZones", rig.Opts("Force", true)), &names)
	if diff := cmp.Diff(rig.AllZones, rig.Sorted(names)); diff != "" {
		t.Error(diff)
	}
	wantFirewalld(r, true, "nftables", rig.AllZones...)
	f.Until("InstalledZones=[libvirt ")
	r.OK(r.Manager("InstallZones", rig.Opts()), &names)
	if len(names) != 0 {
		t.Errorf("installing again gave %q", names)
	}

	addKinds(r, "")
	r.WantError(r.Manager("RemoveZones", rig.Opts()), "ZonesNotInstalled")
	for _, k := range kinds {
		r.Firewalld.WantZone(k.name, "br-"+k.name, k.zone)
	}
	r.OK(r.Manager("RemoveZones", rig.Opts("Unbind", true)), &names)
	if diff := cmp.Diff(rig.AllZones, rig.Sorted(names)); diff != "" {
		t.Error(diff)
	}
	wantFirewalld(r, true, "nftables")
	for _, k := range kinds {
		r.Firewalld.WantZone(k.name, "br-"+k.name, "")
		want := map[bool]string{true: "active", false: "degraded"}[k.mode == "open"]
		if state, reason := r.State(k.name); state != want {
			t.Errorf("without zones %s is %s: %s", k.mode, state, reason)
		}
	}
	rig.Same(t, "files of firewalld", bare, addFiles())
	r.OK(r.Manager("RemoveZones", rig.Opts()), &names)
	if len(names) != 0 {
		t.Errorf("removing again gave %q", names)
	}
}
