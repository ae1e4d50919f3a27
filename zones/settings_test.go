package zones

import (
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
)

func TestSettingsOfIgnoresOrderAndEmptiness(t *testing.T) {
	a := settingsOf(map[string]dbus.Variant{
		"services": dbus.MakeVariant([]string{"ssh", "dns"}),
		"ports":    dbus.MakeVariant([][]any{{"80", "tcp"}, {"53", "udp"}}),
		"forward":  dbus.MakeVariant(false),
		"short":    dbus.MakeVariant(""),
		"priority": dbus.MakeVariant(int32(-1)),
	})
	b := settingsOf(map[string]dbus.Variant{
		"ports":      dbus.MakeVariant([][]any{{"53", "udp"}, {"80", "tcp"}}),
		"services":   dbus.MakeVariant([]string{"dns", "ssh", "dns"}),
		"masquerade": dbus.MakeVariant(false),
		"interfaces": dbus.MakeVariant([]string{}),
		"priority":   dbus.MakeVariant(int32(-1)),
	})
	if !a.equal(b) {
		t.Error(cmp.Diff(a, b))
	}
	want := settings{"services": {"dns", "ssh"}, "ports": {"53/udp", "80/tcp"}, "priority": {"-1"}}
	if diff := cmp.Diff(want, a); diff != "" {
		t.Error(diff)
	}
}

func TestLostSaysBothDirections(t *testing.T) {
	now := settingsOf(map[string]dbus.Variant{
		"services":      dbus.MakeVariant([]string{"dns", "http"}),
		"masquerade":    dbus.MakeVariant(true),
		"forward_ports": dbus.MakeVariant([][]any{{"80", "tcp", "8080", "192.0.2.1"}}),
		"target":        dbus.MakeVariant("default"),
	})
	then := settingsOf(map[string]dbus.Variant{
		"services":   dbus.MakeVariant([]string{"dns", "ssh"}),
		"masquerade": dbus.MakeVariant(false),
		"target":     dbus.MakeVariant("default"),
	})
	want := []string{
		"zone z: forward port 80 tcp 8080 192.0.2.1 (only at runtime)",
		"zone z: masquerade on (only at runtime)",
		"zone z: service http (only at runtime)",
		"zone z: service ssh (permanent, and not in force now)",
	}
	if diff := cmp.Diff(want, lostSettings("zone z", now, then)); diff != "" {
		t.Error(diff)
	}
	if got := lostSettings("zone z", now, now); got != nil {
		t.Errorf("the same twice differs by %q", got)
	}
}

func TestMergeCombinesParts(t *testing.T) {
	a := settings{"services": {"dns"}, "target": {"default"}}
	b := settings{"services": {"dns", "ssh"}, "target": {"default"}}
	want := settings{"services": {"dns", "ssh"}, "target": {"default"}}
	if diff := cmp.Diff(want, a.merge(b)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(settings{"services": {"dns"}, "target": {"default"}}, a); diff != "" {
		t.Errorf("merging changed what it was given: %s", diff)
	}
}
