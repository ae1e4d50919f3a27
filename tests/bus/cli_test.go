package bus

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/dbus"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// ctlJSON runs virtfirewallctl --json and parses what it prints.
func ctlJSON(r *rig.Rig, args ...string) (v any) {
	r.T.Helper()
	out := r.Ctl(0, append([]string{"--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		r.T.Errorf("virtfirewallctl --json %q: %v in\n%s", args, err, out)
	}
	return v
}

// field returns a part of parsed JSON: keys of objects, indexes of lists.
func field(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

// same compares fields of parsed JSON.
func same(r *rig.Rig, what string, v any, want map[string]any) {
	r.T.Helper()
	for key, w := range want {
		if diff := cmp.Diff(w, field(v, key)); diff != "" {
			r.T.Errorf("%s: %s (-want +got):\n%s", what, key, diff)
		}
	}
}

// TestVerbsOfNetworks runs the verbs about networks, as text and as JSON.
func TestVerbsOfNetworks(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.Bridge("virbr0", rig.NatNet)
	xml := rig.NetXML("default", "virbr0", "nat", rig.NatNet)
	r.Write("/root/default.xml", xml)
	rig.WantText(t, "list of none", r.Ctl(0, "list"), "no networks")
	if diff := cmp.Diff([]any{}, ctlJSON(r, "list")); diff != "" {
		t.Error(diff)
	}
	preview := r.Ctl(0, "preview", "/root/default.xml")
	rig.WantText(t, "preview", preview, "network default", "virbr0")
	if r.Table() != "" {
		t.Error("preview made a table")
	}
	rig.WantText(t, "add", r.Ctl(0, "add", "/root/default.xml", "--persistent"), "default added on virbr0: active")
	if diff := cmp.Diff(blocks(preview), blocks(r.Table())); diff != "" {
		t.Errorf("preview and the kernel differ:\n%s", diff)
	}
	out, err := r.RunInput(rig.Lab("lab", 5), "virtfirewallctl", "add", "-", "--json")
	r.WantExit(0, out, err, []string{"add", "-"})
	var added any
	if err := json.Unmarshal([]byte(out), &added); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	same(r, "add", added, map[string]any{"name": "lab", "bridge": "virbr5", "state": "waiting", "persistent": false})

	rig.WantText(t, "list", r.Ctl(0, "list"), "NAME", "default", "lab", "waiting", "10.5.0.1/24")
	list := ctlJSON(r, "list")
	same(r, "list", field(list, 0), map[string]any{"name": "default", "persistent": true, "state": "active", "forward_mode": "nat",
		"addresses": []any{rig.NatNet}, "routes": []any{}, "port_forwards": []any{}, "dhcp": false, "bridge_index": float64(index(r, "virbr0"))})
	rig.WantText(t, "show", r.Ctl(0, "show", "lab"), "virbr5", "waiting", "does not exist yet", "ports 1024-65535")
	if diff := cmp.Diff(field(list, 1), ctlJSON(r, "show", "lab")); diff != "" {
		t.Errorf("list and show differ:\n%s", diff)
	}
	var rules string
	r.OK(r.Network("lab", "GetRuleset"), &rules)
	if got := r.Ctl(0, "rules", "lab"); got != rules {
		t.Errorf("rules and GetRuleset differ:\n%s", cmp.Diff(rules, got))
	}
	rig.WantText(t, "rules", r.Ctl(0, "rules"), "# network default", "# network lab", "network lab")
	same(r, "rules", field(ctlJSON(r, "rules"), 1), map[string]any{"name": "lab", "ruleset": r.Ctl(0, "rules", "lab")})
	rig.WantText(t, "preview", field(ctlJSON(r, "preview", "/root/default.xml", "--backend", "nftables"), "ruleset").(string), "translated4_name")

	rig.WantText(t, "counters", r.Ctl(0, "counters"), "FROM GUESTS", "default", "lab")
	same(r, "counters", field(ctlJSON(r, "counters", "lab"), 0), map[string]any{"name": "lab", "from_guest_packets": 0.0,
		"from_guest_bytes": 0.0, "to_guest_packets": 0.0, "to_guest_bytes": 0.0, "rejected_from_guest_packets": 0.0, "rejected_to_guest_packets": 0.0})

	r.Ctl(1, "add", "/root/default.xml") // it is there already
	r.Ctl(0, "add", "/root/default.xml", "--replace")
	rig.WantText(t, "remove", r.Ctl(0, "remove", "default"), "default removed")
	r.Ctl(3, "show", "default")
	rig.WantText(t, "reload", r.Ctl(0, "reload"), "reloaded")
	r.Ctl(0, "show", "default") // its file speaks again
	same(r, "remove", ctlJSON(r, "remove", "default", "--persistent"), map[string]any{"removed": "default"})
	same(r, "reload", ctlJSON(r, "reload"), map[string]any{"reloaded": true})
	r.Ctl(3, "show", "default")
	r.Ctl(0, "remove", "lab")
	if table := r.Table(); table != "" {
		t.Errorf("with no network there is a table:\n%s", table)
	}
}

// TestShowHasEveryProperty compares what show prints with what the bus has.
func TestShowHasEveryProperty(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.OK(r.AddXML(rig.Corpus(t, "own-ipv6-pool.xml")))
	name := onlyNetwork(r)
	var all map[string]godbus.Variant
	r.OK(r.Call(dbus.NetworkPath(name), rig.PropertiesName+".GetAll", rig.NetworkName), &all)
	shown := map[string]any{}
	for key, value := range ctlJSON(r, "show", name).(map[string]any) {
		shown[strings.ReplaceAll(key, "_", "")] = value
	}
	for property, value := range all {
		text, err := json.Marshal(value.Value())
		rig.Must(t, err)
		var want any
		rig.Must(t, json.Unmarshal(text, &want))
		if diff := cmp.Diff(want, shown[strings.ToLower(property)]); diff != "" {
			t.Errorf("%s (-bus +show):\n%s", property, diff)
		}
	}
	rig.WantText(t, "show", r.Ctl(0, "show", name), all["NATIPv6AddressRange"].Value().(string))
}

// TestVerbsOfTheHost runs the verbs about firewalld and the service.
func TestVerbsOfTheHost(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Announce("state_code=zone-")
	r.Firewalld.SetZones()
	r.StartDaemon()
	r.Bridge("virbr0", rig.NatNet)
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	rig.WantText(t, "zones list", r.Ctl(0, "zones", "list"), "firewalld is not running")
	r.Ctl(1, "zones", "install")
	r.Ctl(1, "bind", "virbr0")
	r.Firewalld.Start("nftables")
	r.AwaitState("default", "degraded")
	rig.WantText(t, "show", r.Ctl(0, "show", "default"), "degraded", "virtfirewallctl zones install")

	r.Must("firewall-cmd", "--zone=public", "--add-port=12345/tcp")
	rig.WantText(t, "zones install", r.Ctl(1, "zones", "install"), "12345", "--runtime-to-permanent")
	rig.WantText(t, "zones install", r.Ctl(0, "zones", "install", "--force"), "libvirt-routed-out")
	if diff := cmp.Diff([]any{}, field(ctlJSON(r, "zones", "install"), "installed")); diff != "" {
		t.Error(diff)
	}
	rig.WantText(t, "show", r.Ctl(0, "show", "default"), "State:", "active", "libvirt")
	same(r, "zones list", ctlJSON(r, "zones", "list"), map[string]any{"firewalld_running": true, "firewalld_backend": "nftables",
		"installed_zones": []any{"libvirt", "libvirt-routed", "libvirt-routed-in", "libvirt-routed-out", "libvirt-to-host"},
		"bindings":        []any{map[string]any{"interface": "virbr0", "zone": "libvirt"}}})

	r.Ctl(3, "bind", "virbr0", "nowhere")
	r.Ctl(3, "bind", "wan0")
	rig.WantText(t, "bind", r.Ctl(0, "bind", "virbr0", "trusted"), "virbr0 is in the zone trusted")
	r.Firewalld.WantZone("default", "virbr0", "trusted")
	same(r, "unbind", ctlJSON(r, "unbind", "virbr0"), map[string]any{"interface": "virbr0"})
	r.Firewalld.WantZone("default", "virbr0", "")
	same(r, "bind", ctlJSON(r, "bind", "virbr0"), map[string]any{"interface": "virbr0", "zone": "libvirt"})
	r.Firewalld.WantZone("default", "virbr0", "libvirt")
	r.Ctl(1, "zones", "remove") // the bridge is in one
	rig.WantText(t, "zones remove", r.Ctl(0, "zones", "remove", "--unbind"), "libvirt-to-host")
	same(r, "zones remove", ctlJSON(r, "zones", "remove"), map[string]any{"removed": []any{}})

	statusAndDoctor(r, t)
	rig.WantText(t, "backend", r.Ctl(0, "backend"), "nftables", "auto", "the kernel has it and nft is installed")
	same(r, "backend", ctlJSON(r, "backend", "nftables", "--persistent"), map[string]any{"backend": "nftables",
		"configured_backend": "nftables", "available_backends": []any{"nftables", "iptables"}})
	r.Announce(rig.Uncovered)
	rig.WantText(t, "backend", r.Ctl(0, "backend", "iptables"), "iptables")
	rig.WantText(t, "rules", r.Ctl(0, "rules", "default"), "LIBVIRT_FWI")
	r.Ctl(0, "backend", "auto", "--persistent")
	rig.WantText(t, "reapply", r.Ctl(0, "reapply"), "nothing to repair")
	same(r, "reapply", ctlJSON(r, "reapply"), map[string]any{"repairs": 0.0})
	version := ctlJSON(r, "version")
	if service, _ := field(version, "service").(string); !strings.HasSuffix(strings.TrimSpace(r.Must("virtfirewalld", "--version")), " "+service) {
		t.Errorf("version says %v", version)
	}
}

// statusAndDoctor has a network that waits for its bridge, and one whose bridge
// firewalld has no zone for.
func statusAndDoctor(r *rig.Rig, t *testing.T) {
	t.Helper()
	r.AwaitState("default", "degraded")
	r.OK(r.AddXML(rig.NetXML("lab", "virbr5", "open", "10.5.0.1/24"))) // it has no zone
	rig.WantText(t, "list", r.Ctl(0, "list"), "\ndefault is degraded: ", "zones install", "[zone-missing]", "\nlab is waiting: ", "[bridge-missing]")
	rig.WantText(t, "status", r.Ctl(0, "status"), "2 networks, 1 degraded, 1 waiting", "the kernel has it and nft is installed",
		"running, backend nftables", "default is degraded: ", "lab is waiting: ")
	status := ctlJSON(r, "status")
	same(r, "status", field(status, "networks"), map[string]any{"total": 2.0, "active": 0.0, "waiting": 1.0, "degraded": 1.0, "failed": 0.0})
	same(r, "status", field(status, "not_active", 0), map[string]any{"name": "default", "state": "degraded", "state_code": "zone-missing"})
	rig.WantText(t, "doctor", r.Ctl(1, "doctor"), "warning: network default: ", "[zone-missing]", "info: network lab: ", "[bridge-missing]")
	rig.WantText(t, "doctor lab", r.Ctl(0, "doctor", "lab"), "[bridge-missing]", "nothing is amiss")
	out := r.Ctl(1, "--json", "doctor", "default")
	var found any
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	same(r, "doctor", field(found, 0), map[string]any{"id": "zone-missing", "severity": "warning", "network": "default"})
	r.OK(r.Manager("RemoveNetwork", "lab", rig.Opts()))
}

// TestExitCodes has a way to each: 0 and 1 are seen to above.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.OK(r.AddXML(rig.Lab("lab", 5)))
	for _, args := range [][]string{{}, {"frobnicate"}, {"add"}, {"show"}, {"show", "lab", "more"}, {"zones"}, {"zones", "burn"},
		{"list", "--colour"}, {"preview", "-", "--backend", "pf"}, {"backend", "pf"}, {"list", "--timeout", "soon"}} {
		out := r.Ctl(2, args...)
		rig.WantText(t, strings.Join(args, " "), out, "virtfirewallctl --help")
	}
	for _, args := range [][]string{{"doctor", "nobody"}, {"show", "nobody"}, {"remove", "nobody"}, {"rules", "nobody"}, {"counters", "nobody"}, {"bind", "virbr9"}, {"unbind", "virbr9"}} {
		rig.WantText(t, strings.Join(args, " "), r.Ctl(3, args...), args[1])
	}
	r.Ctl(1, "add", "/root/none.xml")
	out, err := r.RunInput("<network>", "virtfirewallctl", "add", "-")
	r.WantExit(1, out, err, []string{"add", "-"})

	as := func(code int, args ...string) {
		t.Helper()
		out, err := r.RunAs(65534, append([]string{"virtfirewallctl"}, args...)...)
		r.WantExit(code, out, err, args)
		if code == 4 {
			rig.WantText(t, strings.Join(args, " "), out, "authenticate", "sudo")
		}
	}
	r.Write("/srv/lab.xml", rig.Lab("other", 6))
	before := r.Everything()
	for _, args := range [][]string{{"add", "/srv/lab.xml"}, {"remove", "lab"}, {"bind", "virbr5"}, {"unbind", "virbr5"}, {"zones", "install"},
		{"zones", "remove"}, {"reload"}, {"reapply"}, {"backend", "auto", "--persistent"}, {"doctor"}} {
		as(4, args...)
	}
	for _, args := range [][]string{{"list"}, {"show", "lab"}, {"rules"}, {"counters"}, {"preview", "/srv/lab.xml"}, {"zones", "list"}, {"backend"}, {"version"}, {"status"}} {
		as(0, args...)
	}
	if diff := cmp.Diff(before, r.Everything()); diff != "" {
		t.Errorf("user 65534 changed something (-before +after):\n%s", diff)
	}

	r.StopDaemon()
	for _, args := range [][]string{{"list"}, {"show", "lab"}, {"add", "/srv/lab.xml"}, {"remove", "lab"}, {"reload"}, {"monitor"}} {
		rig.WantText(t, strings.Join(args, " "), r.Ctl(5, args...), "not running")
	}
	rig.WantText(t, "version", r.Ctl(0, "version"), "not running")
	out, err = r.Run("env", "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere", "virtfirewallctl", "list")
	r.WantExit(5, out, err, []string{"list without a bus"})
}

// TestMonitor shows what happens while it happens, over a restart too.
func TestMonitor(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	text := r.Start("monitor", "virtfirewallctl", "monitor")
	lines := r.Start("monitor --json", "virtfirewallctl", "monitor", "--json")
	// It prints nothing before the first event, so that one is made until both
	// are seen to listen.
	r.Until("both monitors listen", func() bool {
		r.OK(r.AddXML(rig.Lab("ping", 9)))
		r.OK(r.Manager("RemoveNetwork", "ping", rig.Opts()))
		return strings.Contains(text.Log(), "network ping removed") && strings.Contains(lines.Log(), `"network":"ping"`)
	})
	r.OK(r.AddXML(rig.Lab("lab", 5)))
	r.OK(r.Network("lab", "Update", rig.Opts("TFTP", true, "ForwardMode", "route"), rig.Opts()))
	says(r, text, "network lab added", `network lab changed: ForwardMode="route" TFTP=true`)
	says(r, lines, `"event":"network-added","network":"lab"`, `"changed":{"ForwardMode":"route","TFTP":true}`)
	r.OK(r.Manager("RemoveNetwork", "lab", rig.Opts()))
	r.StopDaemon()
	r.StartDaemon()
	says(r, text, "network lab removed", "service stopped", "service started")
	says(r, lines, `"event":"network-removed"`, `"event":"service-stopped"`, `"event":"service-started"`)
	rig.Must(t, text.Signal(syscall.SIGINT))
	<-text.Done()
	if err := text.Wait(t.Context()); err != nil {
		t.Errorf("an interrupted monitor ended with %v:\n%s", err, text.Log())
	}
	for line := range strings.Lines(lines.Log()) {
		var v any
		if err := json.Unmarshal([]byte(line), &v); err != nil || field(v, "time") == nil || field(v, "event") == nil {
			t.Errorf("a line is no event: %v in %s", err, line)
		}
	}
}
