package dbus

import (
	"encoding/xml"
	"maps"
	"os"
	"slices"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

func readInterfaces(t *testing.T, doc string) interfaces {
	t.Helper()
	m, err := parseInterfaces(doc)
	must(t, err)
	return m
}

// The contract's testdata is a frozen copy: nothing in it may go or change.
func TestIntrospectionCoversContract(t *testing.T) {
	doc, err := os.ReadFile("testdata/contract.xml")
	must(t, err)
	ours := readInterfaces(t, InterfaceXML)
	for name, want := range readInterfaces(t, string(doc)) {
		got, ok := ours[name]
		if !ok {
			t.Errorf("interface %s is missing", name)
			continue
		}
		if len(want.Methods) == 0 || len(want.Properties) == 0 {
			t.Errorf("the contract's %s is empty, so that this test shows nothing", name)
		}
		covers(t, name+" method", want.Methods, got.Methods)
		covers(t, name+" signal", want.Signals, got.Signals)
		for _, p := range want.Properties {
			i := slices.IndexFunc(got.Properties, func(q propertyXML) bool { return q.Name == p.Name })
			if i < 0 || got.Properties[i].Type != p.Type || got.Properties[i].Access != p.Access {
				t.Errorf("%s: property %s is missing or differs", name, p.Name)
			}
		}
	}
}

func covers(t *testing.T, what string, want, got []memberXML) {
	t.Helper()
	for _, m := range want {
		i := slices.IndexFunc(got, func(g memberXML) bool { return g.Name == m.Name })
		if i < 0 {
			t.Errorf("%s %s is missing", what, m.Name)
			continue
		}
		if diff := cmp.Diff(m.Args, got[i].Args); diff != "" {
			t.Errorf("%s %s differs: %s", what, m.Name, diff)
		}
	}
}

func TestEveryPropertyIsAnnotated(t *testing.T) {
	for name, iface := range readInterfaces(t, InterfaceXML) {
		for _, p := range iface.Properties {
			want := "true"
			if slices.Contains([]string{"Name", "UUID", "Version"}, p.Name) {
				want = "const"
			}
			note := annotationXML{Name: "org.freedesktop.DBus.Property.EmitsChangedSignal", Value: want}
			if !slices.Contains(p.Annotations, note) {
				t.Errorf("%s.%s has the annotations %v, want %v", name, p.Name, p.Annotations, note)
			}
		}
	}
}

func TestLiveObjectsShowTheIntrospectionData(t *testing.T) {
	r := newRig(t)
	r.add(t, "zwei drei")
	path := r.add(t, "default")
	for _, c := range []struct {
		path       godbus.ObjectPath
		interfaces []string
		children   []string
	}{
		{ManagerPath, []string{managerInterface, propertiesInterface, introspectableInterface, peerInterface, objectManagerInterface}, []string{"network"}},
		{path, []string{networkInterface, propertiesInterface, introspectableInterface, peerInterface}, nil},
		{networksPath, []string{introspectableInterface, peerInterface}, []string{"default", "zwei_20drei"}},
		{"/org/virtfirewall", []string{introspectableInterface, peerInterface}, []string{"NetworkFirewall1"}},
		{"/org", []string{introspectableInterface, peerInterface}, []string{"virtfirewall"}},
		{"/", []string{introspectableInterface, peerInterface}, []string{"org"}},
	} {
		t.Run(string(c.path), func(t *testing.T) { checkLive(t, r, c.path, c.interfaces, c.children) })
	}
}

func checkLive(t *testing.T, r *rig, path godbus.ObjectPath, names, children []string) {
	var doc string
	must(t, r.callAt(path, introspectableInterface+".Introspect").Store(&doc))
	live := readInterfaces(t, doc)
	if got := slices.Sorted(maps.Keys(live)); !slices.Equal(got, slices.Sorted(slices.Values(names))) {
		t.Errorf("interfaces: %v, want %v", got, names)
	}
	ours := readInterfaces(t, InterfaceXML)
	for name, iface := range live {
		if diff := cmp.Diff(ours[name], iface); diff != "" {
			t.Errorf("%s differs from the file: %s", name, diff)
		}
	}
	var n nodeXML
	must(t, xml.Unmarshal([]byte(doc), &n))
	var got []string
	for _, c := range n.Children {
		got = append(got, c.Name)
	}
	if !slices.Equal(got, children) {
		t.Errorf("children: %v, want %v", got, children)
	}
}

// What the objects really answer has the names and types that are described.
func TestPropertiesAreThoseDescribed(t *testing.T) {
	r := newRig(t)
	path := r.add(t, "default")
	spec := readInterfaces(t, InterfaceXML)
	for _, c := range []struct {
		path  godbus.ObjectPath
		iface string
	}{{ManagerPath, managerInterface}, {path, networkInterface}} {
		var all map[string]godbus.Variant
		must(t, r.callAt(c.path, propertiesInterface+".GetAll", c.iface).Store(&all))
		if len(all) != len(spec[c.iface].Properties) {
			t.Errorf("%s has %d properties, and %d are described", c.iface, len(all), len(spec[c.iface].Properties))
		}
		for _, p := range spec[c.iface].Properties {
			var one godbus.Variant
			must(t, r.callAt(c.path, propertiesInterface+".Get", c.iface, p.Name).Store(&one))
			if one.Signature().String() != p.Type || all[p.Name].String() != one.String() {
				t.Errorf("%s.%s: Get gives %s, GetAll %s, the type is %s", c.iface, p.Name, one, all[p.Name], p.Type)
			}
		}
	}
}

// The settings that a network shows make the same network.
func TestSettingsRoundTrip(t *testing.T) {
	for _, doc := range []string{defaultXML,
		`<network><name>n</name><forward mode='nat' dev='eth0'><nat ipv6='yes'><address start='192.0.2.1' end='192.0.2.9'/><port start='5000' end='6000'/></nat></forward>
		<bridge name='br1' zone='work'/><dns enable='no'/><ip address='10.1.0.1' prefix='16'><tftp root='/x'/></ip><ip family='ipv6' address='fd00::1' prefix='64'/>
		<route address='10.9.0.0' prefix='16' gateway='10.1.0.2'/></network>`,
		`<network ipv6='yes'><name>i</name><bridge name='br2'/></network>`,
		`<network><name>full</name><forward mode='nat'><nat><port start='1024' end='65535'/></nat></forward><bridge name='br3'/><ip address='10.1.0.1' prefix='16'/></network>`,
	} {
		n, err := network.FromXML([]byte(doc))
		must(t, err)
		shown := map[string]any{}
		for _, p := range networkProperties(service.Status{Network: n}) {
			if slices.Contains(network.SettingKeys(), p.name) {
				shown[p.name] = p.value
			}
		}
		if diff := cmp.Diff(n.Settings(), shown); diff != "" {
			t.Errorf("%s: %s", n.Name, diff)
		}
		if _, err := network.FromSettings(n.Name, shown); err != nil {
			t.Errorf("%s: the settings shown are refused: %v", n.Name, err)
		}
	}
}

func TestWithSignaturesRefusesWhatDoesNotMatch(t *testing.T) {
	spec := readInterfaces(t, InterfaceXML)
	exported := &exports{}
	if _, err := withSignatures(exported.handlers(), spec); err != nil {
		t.Fatal(err)
	}
	missing := exported.handlers()
	delete(missing[managerInterface], "Reload")
	surplus := exported.handlers()
	surplus[networkInterface]["Explode"] = method{}
	renamed := exported.handlers()
	delete(renamed[peerInterface], "Ping")
	renamed[peerInterface]["Pong"] = method{}
	unknown := exported.handlers()
	unknown["org.example.Other"] = map[string]method{}
	for what, h := range map[string]map[string]map[string]method{"missing": missing, "surplus": surplus, "renamed": renamed, "unknown": unknown} {
		if _, err := withSignatures(h, spec); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

// A reply in order with the signals waits for the lock that a change, in the
// end, waits for as well.
func TestNoMethodBothReadsInOrderAndChanges(t *testing.T) {
	for iface, methods := range (&exports{}).handlers() {
		for name, m := range methods {
			if m.state && m.changes() {
				t.Errorf("%s.%s would wait for itself", iface, name)
			}
		}
	}
}
