package tests

import (
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/dbus"
)

// ctl runs virtfirewallctl, which must end with the exit code.
func (r *rig) ctl(code int, args ...string) string {
	r.t.Helper()
	out, err := r.Run(append([]string{"virtfirewallctl"}, args...)...)
	r.ended(code, out, err, args)
	return out
}

func (r *rig) ended(code int, out string, err error, args []string) {
	r.t.Helper()
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		r.t.Fatal(err)
	}
	if got != code {
		r.t.Errorf("virtfirewallctl %q ended with %d, not %d:\n%s", args, got, code, out)
	}
}

// ctlJSON runs virtfirewallctl --json and parses what it prints.
func (r *rig) ctlJSON(args ...string) (v any) {
	r.t.Helper()
	out := r.ctl(0, append([]string{"--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		r.t.Errorf("virtfirewallctl --json %q: %v in\n%s", args, err, out)
	}
	return v
}

// field is a part of parsed JSON: keys of objects, indexes of lists.
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
func (r *rig) same(what string, v any, want map[string]any) {
	r.t.Helper()
	for key, w := range want {
		if diff := cmp.Diff(w, field(v, key)); diff != "" {
			r.t.Errorf("%s: %s (-want +got):\n%s", what, key, diff)
		}
	}
}

func contains(t *testing.T, what, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s does not say %q:\n%s", what, w, text)
		}
	}
}

// TestVerbsOfNetworks runs the verbs about networks, as text and as JSON.
func TestVerbsOfNetworks(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	r.Bridge("virbr0", natNet)
	xml := netXML("default", "virbr0", "nat", natNet)
	if err := r.WriteFile("/root/default.xml", []byte(xml), 0o644); err != nil {
		t.Fatal(err)
	}
	contains(t, "list of none", r.ctl(0, "list"), "no networks")
	if diff := cmp.Diff([]any{}, r.ctlJSON("list")); diff != "" {
		t.Error(diff)
	}
	preview := r.ctl(0, "preview", "/root/default.xml")
	contains(t, "preview", preview, "chain net_default_from", "virbr0")
	if r.Table() != "" {
		t.Error("preview made a table")
	}
	contains(t, "add", r.ctl(0, "add", "/root/default.xml", "--persistent"), "default added on virbr0: active")
	if diff := cmp.Diff(blocks(preview), blocks(r.Table())); diff != "" {
		t.Errorf("preview and the kernel differ:\n%s", diff)
	}
	out, err := r.RunInput(lab("lab", 5), "virtfirewallctl", "add", "-", "--json")
	r.ended(0, out, err, []string{"add", "-"})
	var added any
	if err := json.Unmarshal([]byte(out), &added); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	r.same("add", added, map[string]any{"name": "lab", "bridge": "virbr5", "state": "waiting", "persistent": false})

	contains(t, "list", r.ctl(0, "list"), "NAME", "default", "lab", "waiting", "10.5.0.1/24")
	list := r.ctlJSON("list")
	r.same("list", field(list, 0), map[string]any{"name": "default", "persistent": true, "state": "active", "forward_mode": "nat",
		"addresses": []any{natNet}, "routes": []any{}, "port_forwards": []any{}, "dhcp": false, "bridge_index": float64(r.index("virbr0"))})
	contains(t, "show", r.ctl(0, "show", "lab"), "virbr5", "waiting", "does not exist yet", "ports 1024-65535")
	if diff := cmp.Diff(field(list, 1), r.ctlJSON("show", "lab")); diff != "" {
		t.Errorf("list and show differ:\n%s", diff)
	}
	var rules string
	r.must(r.Network("lab", "GetRuleset"), &rules)
	if got := r.ctl(0, "rules", "lab"); got != rules {
		t.Errorf("rules and GetRuleset differ:\n%s", cmp.Diff(rules, got))
	}
	contains(t, "rules", r.ctl(0, "rules"), "# network default", "# network lab", "chain net_lab_to")
	r.same("rules", field(r.ctlJSON("rules"), 1), map[string]any{"name": "lab", "ruleset": r.ctl(0, "rules", "lab")})
	contains(t, "preview", field(r.ctlJSON("preview", "/root/default.xml", "--backend", "nftables"), "ruleset").(string), "net_default_nat")

	contains(t, "counters", r.ctl(0, "counters"), "FROM GUESTS", "default", "lab")
	r.same("counters", field(r.ctlJSON("counters", "lab"), 0), map[string]any{"name": "lab", "from_guest_packets": 0.0,
		"from_guest_bytes": 0.0, "to_guest_packets": 0.0, "to_guest_bytes": 0.0, "rejected_from_guest_packets": 0.0, "rejected_to_guest_packets": 0.0})

	r.ctl(1, "add", "/root/default.xml") // it is there already
	r.ctl(0, "add", "/root/default.xml", "--replace")
	contains(t, "remove", r.ctl(0, "remove", "default"), "default removed")
	r.ctl(3, "show", "default")
	contains(t, "reload", r.ctl(0, "reload"), "reloaded")
	r.ctl(0, "show", "default") // its file speaks again
	r.same("remove", r.ctlJSON("remove", "default", "--persistent"), map[string]any{"removed": "default"})
	r.same("reload", r.ctlJSON("reload"), map[string]any{"reloaded": true})
	r.ctl(3, "show", "default")
	r.ctl(0, "remove", "lab")
	if table := r.Table(); table != "" {
		t.Errorf("with no network there is a table:\n%s", table)
	}
}

// TestShowHasEveryProperty compares what show prints with what the bus has.
func TestShowHasEveryProperty(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	r.must(r.AddXML(corpus(t, "own-ipv6-pool.xml")))
	name := r.onlyNetwork()
	var all map[string]godbus.Variant
	r.must(r.Call(dbus.NetworkPath(name), propertiesName+".GetAll", networkName), &all)
	shown := map[string]any{}
	for key, value := range r.ctlJSON("show", name).(map[string]any) {
		shown[strings.ReplaceAll(key, "_", "")] = value
	}
	for property, value := range all {
		text, err := json.Marshal(value.Value())
		if err != nil {
			t.Fatal(err)
		}
		var want any
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, shown[strings.ToLower(property)]); diff != "" {
			t.Errorf("%s (-bus +show):\n%s", property, diff)
		}
	}
	contains(t, "show", r.ctl(0, "show", name), all["NATIPv6AddressRange"].Value().(string))
}

// TestVerbsOfTheHost runs the verbs about firewalld and the service.
func TestVerbsOfTheHost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.Announce("state_code=zone-")
	r.zoneFiles()
	r.StartDaemon()
	r.Bridge("virbr0", natNet)
	r.must(r.AddXML(netXML("default", "virbr0", "nat", natNet)))
	contains(t, "zones list", r.ctl(0, "zones", "list"), "firewalld is not running")
	r.ctl(1, "zones", "install")
	r.ctl(1, "bind", "virbr0")
	r.Firewalld("nftables")
	r.AwaitState("default", "degraded")
	contains(t, "show", r.ctl(0, "show", "default"), "degraded", "virtfirewallctl zones install")

	r.Must("firewall-cmd", "--zone=public", "--add-port=12345/tcp")
	contains(t, "zones install", r.ctl(1, "zones", "install"), "12345", "--runtime-to-permanent")
	contains(t, "zones install", r.ctl(0, "zones", "install", "--force"), "libvirt-routed-out")
	if diff := cmp.Diff([]any{}, field(r.ctlJSON("zones", "install"), "installed")); diff != "" {
		t.Error(diff)
	}
	contains(t, "show", r.ctl(0, "show", "default"), "State:", "active", "libvirt")
	r.same("zones list", r.ctlJSON("zones", "list"), map[string]any{"firewalld_running": true, "firewalld_backend": "nftables",
		"installed_zones": []any{"libvirt", "libvirt-routed", "libvirt-routed-in", "libvirt-routed-out", "libvirt-to-host"},
		"bindings":        []any{map[string]any{"interface": "virbr0", "zone": "libvirt"}}})

	r.ctl(3, "bind", "virbr0", "nowhere")
	r.ctl(3, "bind", "wan0")
	contains(t, "bind", r.ctl(0, "bind", "virbr0", "trusted"), "virbr0 is in the zone trusted")
	r.wantZone("default", "virbr0", "trusted")
	r.same("unbind", r.ctlJSON("unbind", "virbr0"), map[string]any{"interface": "virbr0"})
	r.wantZone("default", "virbr0", "")
	r.same("bind", r.ctlJSON("bind", "virbr0"), map[string]any{"interface": "virbr0", "zone": "libvirt"})
	r.wantZone("default", "virbr0", "libvirt")
	r.ctl(1, "zones", "remove") // the bridge is in one
	contains(t, "zones remove", r.ctl(0, "zones", "remove", "--unbind"), "libvirt-to-host")
	r.same("zones remove", r.ctlJSON("zones", "remove"), map[string]any{"removed": []any{}})

	r.statusAndDoctor(t)
	contains(t, "backend", r.ctl(0, "backend"), "nftables", "auto", "the kernel has it and nft is installed")
	r.same("backend", r.ctlJSON("backend", "nftables", "--persistent"), map[string]any{"backend": "nftables",
		"configured_backend": "nftables", "available_backends": []any{"nftables", "iptables"}})
	r.Announce(uncovered)
	contains(t, "backend", r.ctl(0, "backend", "iptables"), "iptables")
	contains(t, "rules", r.ctl(0, "rules", "default"), "LIBVIRT_FWI")
	r.ctl(0, "backend", "auto", "--persistent")
	contains(t, "reapply", r.ctl(0, "reapply"), "nothing to repair")
	r.same("reapply", r.ctlJSON("reapply"), map[string]any{"repairs": 0.0})
	version := r.ctlJSON("version")
	if service, _ := field(version, "service").(string); !strings.HasSuffix(strings.TrimSpace(r.Must("virtfirewalld", "--version")), " "+service) {
		t.Errorf("version says %v", version)
	}
}

// statusAndDoctor has a network that waits for its bridge, and one whose bridge
// firewalld has no zone for.
func (r *rig) statusAndDoctor(t *testing.T) {
	t.Helper()
	r.AwaitState("default", "degraded")
	r.must(r.AddXML(netXML("lab", "virbr5", "open", "10.5.0.1/24"))) // its zone is nobody's business
	contains(t, "list", r.ctl(0, "list"), "\ndefault is degraded: ", "zones install", "[zone-missing]", "\nlab is waiting: ", "[bridge-missing]")
	contains(t, "status", r.ctl(0, "status"), "2 networks, 1 degraded, 1 waiting", "the kernel has it and nft is installed",
		"running, backend nftables", "default is degraded: ", "lab is waiting: ")
	status := r.ctlJSON("status")
	r.same("status", field(status, "networks"), map[string]any{"total": 2.0, "active": 0.0, "waiting": 1.0, "degraded": 1.0, "failed": 0.0})
	r.same("status", field(status, "not_active", 0), map[string]any{"name": "default", "state": "degraded", "state_code": "zone-missing"})
	contains(t, "doctor", r.ctl(1, "doctor"), "warning: network default: ", "[zone-missing]", "info: network lab: ", "[bridge-missing]")
	contains(t, "doctor lab", r.ctl(0, "doctor", "lab"), "[bridge-missing]", "nothing is amiss")
	out := r.ctl(1, "--json", "doctor", "default")
	var found any
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	r.same("doctor", field(found, 0), map[string]any{"id": "zone-missing", "severity": "warning", "network": "default"})
	r.must(r.Manager("RemoveNetwork", "lab", opts()))
}

// TestExitCodes has a way to each: 0 and 1 are seen to above.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	r.must(r.AddXML(lab("lab", 5)))
	for _, args := range [][]string{{}, {"frobnicate"}, {"add"}, {"show"}, {"show", "lab", "more"}, {"zones"}, {"zones", "burn"},
		{"list", "--colour"}, {"preview", "-", "--backend", "pf"}, {"backend", "pf"}, {"list", "--timeout", "soon"}} {
		out := r.ctl(2, args...)
		contains(t, strings.Join(args, " "), out, "virtfirewallctl --help")
	}
	for _, args := range [][]string{{"doctor", "nobody"}, {"show", "nobody"}, {"remove", "nobody"}, {"rules", "nobody"}, {"counters", "nobody"}, {"bind", "virbr9"}, {"unbind", "virbr9"}} {
		contains(t, strings.Join(args, " "), r.ctl(3, args...), args[1])
	}
	r.ctl(1, "add", "/root/none.xml")
	out, err := r.RunInput("<network>", "virtfirewallctl", "add", "-")
	r.ended(1, out, err, []string{"add", "-"})

	as := func(code int, args ...string) {
		t.Helper()
		out, err := r.RunAs(65534, append([]string{"virtfirewallctl"}, args...)...)
		r.ended(code, out, err, args)
		if code == 4 {
			contains(t, strings.Join(args, " "), out, "authenticate", "sudo")
		}
	}
	if err := r.WriteFile("/srv/lab.xml", []byte(lab("other", 6)), 0o644); err != nil {
		t.Fatal(err)
	}
	before := r.everything()
	for _, args := range [][]string{{"add", "/srv/lab.xml"}, {"remove", "lab"}, {"bind", "virbr5"}, {"unbind", "virbr5"}, {"zones", "install"},
		{"zones", "remove"}, {"reload"}, {"reapply"}, {"backend", "auto", "--persistent"}, {"doctor"}} {
		as(4, args...)
	}
	for _, args := range [][]string{{"list"}, {"show", "lab"}, {"rules"}, {"counters"}, {"preview", "/srv/lab.xml"}, {"zones", "list"}, {"backend"}, {"version"}, {"status"}} {
		as(0, args...)
	}
	if diff := cmp.Diff(before, r.everything()); diff != "" {
		t.Errorf("user 65534 changed something (-before +after):\n%s", diff)
	}

	r.StopDaemon()
	for _, args := range [][]string{{"list"}, {"show", "lab"}, {"add", "/srv/lab.xml"}, {"remove", "lab"}, {"reload"}, {"monitor"}} {
		contains(t, strings.Join(args, " "), r.ctl(5, args...), "not running")
	}
	contains(t, "version", r.ctl(0, "version"), "not running")
	out, err = r.Run("env", "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere", "virtfirewallctl", "list")
	r.ended(5, out, err, []string{"list without a bus"})
}

// TestMonitor shows what happens while it happens, over a restart too.
func TestMonitor(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	text := r.Start("monitor", "virtfirewallctl", "monitor")
	lines := r.Start("monitor --json", "virtfirewallctl", "monitor", "--json")
	// It prints nothing before the first event, so that one is made until both
	// are seen to listen.
	r.until("both monitors listen", func() bool {
		r.must(r.AddXML(lab("ping", 9)))
		r.must(r.Manager("RemoveNetwork", "ping", opts()))
		return strings.Contains(text.Log(), "network ping removed") && strings.Contains(lines.Log(), `"network":"ping"`)
	})
	r.must(r.AddXML(lab("lab", 5)))
	r.must(r.Network("lab", "Update", opts("TFTP", true, "ForwardMode", "route"), opts()))
	r.says(text, "network lab added", `network lab changed: ForwardMode="route" TFTP=true`)
	r.says(lines, `"event":"network-added","network":"lab"`, `"changed":{"ForwardMode":"route","TFTP":true}`)
	r.must(r.Manager("RemoveNetwork", "lab", opts()))
	r.StopDaemon()
	r.StartDaemon()
	r.says(text, "network lab removed", "service stopped", "service started")
	r.says(lines, `"event":"network-removed"`, `"event":"service-stopped"`, `"event":"service-started"`)
	if err := text.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
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
