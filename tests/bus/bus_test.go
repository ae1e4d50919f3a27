// Package bus holds the tests of the contract on the bus and of its clients.
package bus

import (
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/dbus"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

const notSupported = "org.freedesktop.DBus.Error.NotSupported"

var (
	comments = regexp.MustCompile(`(?s)<!--.*?-->`)
	notes    = regexp.MustCompile(`<annotation [^>]*?(/>|></annotation>)`)
	closed   = regexp.MustCompile(`></(arg|annotation|method|property)>`)
	spaces   = regexp.MustCompile(`\s+`)
)

// members returns the lines of each interface. Annotations are left out where the
// other document, the contract, has none.
func members(t *testing.T, doc string, annotated bool) map[string][]string {
	t.Helper()
	var n rig.Node
	rig.Must(t, xml.Unmarshal([]byte(doc), &n))
	out := map[string][]string{}
	for _, i := range n.Interfaces {
		for _, m := range i.Members {
			line := m.XMLName.Local
			for _, a := range m.Attrs {
				line += fmt.Sprintf(" %s=%s", a.Name.Local, a.Value)
			}
			inner := comments.ReplaceAllString(m.Inner, "")
			if !annotated {
				inner = notes.ReplaceAllString(inner, "")
			}
			line += " " + spaces.ReplaceAllString(closed.ReplaceAllString(inner, "/>"), " ")
			out[i.Name] = append(out[i.Name], strings.TrimSpace(line))
		}
		slices.Sort(out[i.Name])
	}
	return out
}

// TestIntrospection compares what the live objects show with the project's
// XML, and that with the contract.
func TestIntrospection(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.OK(r.AddXML(rig.NetXML("lab", "virbr5", "nat", rig.NatNet)))
	r.OK(r.AddXML(rig.NetXML("straße 7", "virbr7", "isolated", "10.7.0.1/24")))
	files := map[string]map[string][]string{}
	for name, annotated := range map[string]bool{"live": true, "plain": false} {
		doc, err := os.ReadFile(rig.Source("dbus", rig.ManagerName+".xml"))
		rig.Must(t, err)
		files[name] = members(t, string(doc), annotated)
	}
	contract, err := os.ReadFile(rig.Source("dbus/testdata/contract.xml"))
	rig.Must(t, err)
	for name, lines := range members(t, string(contract), false) {
		for _, line := range lines {
			if !slices.Contains(files["plain"][name], line) {
				t.Errorf("%s lacks %s of the contract", name, line)
			}
		}
		if len(lines) < 10 {
			t.Errorf("the contract's %s has %d members, so that this test shows little", name, len(lines))
		}
	}
	standard := []string{"Introspectable", "Peer", "Properties"}
	for _, c := range []struct {
		path     godbus.ObjectPath
		own      string
		standard []string
		children []string
	}{
		{rig.ManagerPath, rig.ManagerName, append([]string{"ObjectManager"}, standard...), []string{"network"}},
		{dbus.NetworkPath("lab"), rig.NetworkName, standard, nil},
		{dbus.NetworkPath("straße 7"), rig.NetworkName, standard, nil},
		{rig.ManagerPath + "/network", "", standard[:2], []string{"lab", "stra_c3_9fe_207"}},
		{"/org/virtfirewall", "", standard[:2], []string{"NetworkFirewall1"}},
		{"/org", "", standard[:2], []string{"virtfirewall"}},
		{"/", "", standard[:2], []string{"org"}},
	} {
		doc := r.Introspect(c.path)
		live := members(t, doc, true)
		if c.own != "" {
			if diff := cmp.Diff(files["live"][c.own], live[c.own]); diff != "" {
				t.Errorf("%s differs from the project's XML (-file +live):\n%s", c.path, diff)
			}
		}
		want := slices.Clone(c.standard)
		for i := range want {
			want[i] = "org.freedesktop.DBus." + want[i]
		}
		if c.own != "" {
			want = append(want, c.own)
		}
		if got := slices.Sorted(maps.Keys(live)); !slices.Equal(got, rig.Sorted(want)) {
			t.Errorf("%s has the interfaces %q, want %q", c.path, got, want)
		}
		var n rig.Node
		rig.Must(t, xml.Unmarshal([]byte(doc), &n))
		var children []string
		for _, child := range n.Children {
			children = append(children, child.Name)
		}
		if !slices.Equal(children, c.children) {
			t.Errorf("%s has the children %q, want %q", c.path, children, c.children)
		}
	}
	// Every property that introspection shows can be read, and no others.
	for path, iface := range map[godbus.ObjectPath]string{rig.ManagerPath: rig.ManagerName, dbus.NetworkPath("lab"): rig.NetworkName} {
		var all map[string]godbus.Variant
		r.OK(r.Call(path, rig.PropertiesName+".GetAll", iface), &all)
		var shown []string
		for _, line := range files["plain"][iface] {
			if rest, ok := strings.CutPrefix(line, "property name="); ok {
				name, typ, _ := strings.Cut(rest, " type=")
				typ, _, _ = strings.Cut(typ, " ")
				shown = append(shown, name)
				if got := all[name].Signature().String(); got != typ {
					t.Errorf("%s.%s has type %s, want %s", iface, name, got, typ)
				}
			}
		}
		if got := slices.Sorted(maps.Keys(all)); !slices.Equal(got, rig.Sorted(shown)) {
			t.Errorf("%s has the properties %q, introspection shows %q", iface, got, shown)
		}
	}
}

// TestSignalsOfEachChange follows a network's life.
func TestSignalsOfEachChange(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Configure("own_table = false") // others may flush it then
	r.StartDaemon()
	f := r.Follow()
	want := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, f.All()); diff != "" {
			t.Errorf("%s (-want +heard):\n%s", what, diff)
		}
	}
	r.Bridge("virbr5") // without its address, which would keep the network from another bridge
	index := index(r, "virbr5")
	r.OK(r.AddXML(rig.NetXML("lab", "virbr5", "nat", rig.NatNet)))
	want("add", "InterfacesAdded lab ["+rig.NetworkName+"]", "NetworkAdded lab lab")
	r.OK(r.Network("lab", "Update", rig.Opts("ForwardMode", "route", "TFTP", true, "Routes", []string{"10.9.0.0/16"}), rig.Opts()))
	want("one change set", "PropertiesChanged lab ForwardMode=route Routes=[10.9.0.0/16] TFTP=true")
	r.OK(r.Network("lab", "Update", rig.Opts("TFTP", true), rig.Opts()))
	want("a change that changes nothing")
	r.OK(r.Network("lab", "Update", rig.Opts("Bridge", "virbr6"), rig.Opts("Persistent", true)))
	heard := f.All()
	if len(heard) != 2 || heard[1] != "FindingsChanged" || !rig.HasAll(heard[0], []string{"PropertiesChanged lab Bridge=virbr6 BridgeIndex=0 Persistent=true State=waiting StateCode=bridge-missing StateReason=bridge virbr6"}) {
		t.Errorf("another bridge was told as %q", heard)
	}
	r.OK(r.Network("lab", "Update", rig.Opts("Bridge", "virbr5"), rig.Opts("Persistent", true)))
	want("the bridge again", fmt.Sprintf("PropertiesChanged lab Bridge=virbr5 BridgeIndex=%d State=active StateCode= StateReason=", index), "FindingsChanged")
	r.OK(r.AddXML(rig.NetXML("lab", "virbr5", "isolated", rig.NatNet), "Replace", true))
	want("replace", "PropertiesChanged lab ForwardMode=isolated Routes=[] TFTP=false")
	r.OK(r.AddXML(strings.Replace(rig.NetXML("lab", "virbr5", "nat", rig.NatNet), "<name>",
		"<uuid>b9d7d1a4-6f6c-4f3a-9d7a-0a3c8a1f2b11</uuid><name>", 1), "Replace", true))
	want("replace by another", "NetworkRemoved lab lab", "InterfacesRemoved lab ["+rig.NetworkName+"]",
		"InterfacesAdded lab ["+rig.NetworkName+"]", "NetworkAdded lab lab")
	r.Must("nft", "flush", "ruleset")
	r.OK(r.Manager("Reapply"))
	if heard := f.Until("Repaired"); len(heard) != 1 || !strings.HasPrefix(heard[0], "Repaired lab ") {
		t.Errorf("a repair was told as %q", heard)
	}
	r.OK(r.Manager("RemoveNetwork", "lab", rig.Opts("Persistent", true)))
	want("remove", "NetworkRemoved lab lab", "InterfacesRemoved lab ["+rig.NetworkName+"]")
	r.WantError(r.Manager("RemoveNetwork", "lab", rig.Opts()), "NetworkNotFound")
	want("a call that failed")
}

// index returns a link's interface index.
func index(r *rig.Rig, link string) (index int) {
	r.T.Helper()
	if _, err := fmt.Sscan(r.Must("cat", "/sys/class/net/"+link+"/ifindex"), &index); err != nil {
		r.T.Fatal(err)
	}
	return index
}

func TestObjectManagerAndLookups(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	var objects map[godbus.ObjectPath]map[string]map[string]godbus.Variant
	r.OK(r.Call(rig.ManagerPath, rig.ObjectsName+".GetManagedObjects"), &objects)
	if len(objects) != 0 {
		t.Errorf("an empty service has objects: %v", objects)
	}
	var path godbus.ObjectPath
	for _, name := range []string{"zulu", "alpha", "mit Leer_zeichen"} {
		number := len(name)
		r.OK(r.AddXML(rig.Lab(name, number)), &path)
		if path != dbus.NetworkPath(name) {
			t.Errorf("%s was added as %s", name, path)
		}
		r.OK(r.Manager("GetNetwork", name), &path)
		if path != dbus.NetworkPath(name) {
			t.Errorf("GetNetwork(%s) = %s", name, path)
		}
		r.OK(r.Manager("GetNetworkByBridge", fmt.Sprintf("virbr%d", number)), &path)
		if path != dbus.NetworkPath(name) {
			t.Errorf("GetNetworkByBridge of %s = %s", name, path)
		}
	}
	var listed []godbus.ObjectPath
	r.OK(r.Manager("ListNetworks"), &listed)
	if want := []godbus.ObjectPath{dbus.NetworkPath("alpha"), dbus.NetworkPath("mit Leer_zeichen"), dbus.NetworkPath("zulu")}; !slices.Equal(listed, want) {
		t.Errorf("ListNetworks = %v", listed)
	}
	r.OK(r.Call(rig.ManagerPath, rig.ObjectsName+".GetManagedObjects"), &objects)
	for _, path := range listed {
		var all map[string]godbus.Variant
		r.OK(r.Call(path, rig.PropertiesName+".GetAll", rig.NetworkName), &all)
		if diff := cmp.Diff(rig.Values(all), rig.Values(objects[path][rig.NetworkName])); diff != "" || len(objects[path]) != 1 {
			t.Errorf("%s: GetManagedObjects and GetAll differ:\n%s", path, diff)
		}
	}
	r.WantError(r.Manager("GetNetwork", "nobody"), "NetworkNotFound")
	r.WantError(r.Manager("GetNetworkByBridge", "virbr99"), "NetworkNotFound")
	r.WantError(r.Network("nobody", "GetRuleset"), "org.freedesktop.DBus.Error.UnknownObject")
}

// TestUpdateIsOneStep changes several keys, and only those given.
func TestUpdateIsOneStep(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.Bridge("virbr5", "10.5.0.1/24")
	r.OK(r.AddXML(rig.Corpus(t, "own-routes-and-services.xml")))
	name := onlyNetwork(r)
	before := settings(r, name)
	r.OK(r.Network(name, "Update", rig.Opts("Bridge", "virbr5", "Addresses", []string{"10.5.0.1/24", "2001:db8:5::1/64"},
		"ForwardMode", "isolated", "Routes", []string{}, "DNS", false), rig.Opts()))
	want := maps.Clone(before)
	maps.Copy(want, map[string]string{"Bridge": "virbr5", "Addresses": "[10.5.0.1/24 2001:db8:5::1/64]", "ForwardMode": "isolated", "Routes": "[]", "DNS": "false"})
	if diff := cmp.Diff(want, settings(r, name)); diff != "" {
		t.Errorf("after Update (-want +got):\n%s", diff)
	}
	// One that is wrong in the last key changes none.
	all := r.Everything()
	r.WantError(r.Network(name, "Update", rig.Opts("TFTP", true, "Addresses", []string{"10.6.0.1/24"}, "NATPortRange", "9-1"), rig.Opts()), "InvalidArgument")
	r.WantError(r.Network(name, "Update", rig.Opts("Name", "other"), rig.Opts()), "InvalidArgument")
	r.WantError(r.Network(name, "Update", rig.Opts("Colour", "red"), rig.Opts()), "InvalidArgument")
	r.WantError(r.Network(name, "Update", rig.Opts("TFTP", "yes"), rig.Opts()), "InvalidArgument")
	r.WantError(r.Network(name, "Update", rig.Opts("TFTP", true), rig.Opts("Replace", true)), "InvalidArgument")
	if diff := cmp.Diff(all, r.Everything()); diff != "" {
		t.Errorf("failed updates changed something (-before +after):\n%s", diff)
	}
}

// settings returns a network's settings as text, by key.
func settings(r *rig.Rig, name string) map[string]string {
	r.T.Helper()
	var all map[string]godbus.Variant
	r.OK(r.Call(dbus.NetworkPath(name), rig.PropertiesName+".GetAll", rig.NetworkName), &all)
	out := map[string]string{}
	for _, key := range network.SettingKeys() {
		if v, ok := all[key]; ok {
			out[key] = fmt.Sprint(v.Value())
		}
	}
	return out
}

// onlyNetwork returns the name of the one network that there is.
func onlyNetwork(r *rig.Rig) string {
	r.T.Helper()
	var objects map[godbus.ObjectPath]map[string]map[string]godbus.Variant
	r.OK(r.Call(rig.ManagerPath, rig.ObjectsName+".GetManagedObjects"), &objects)
	if len(objects) != 1 {
		r.T.Fatalf("there are %d networks", len(objects))
	}
	for _, interfaces := range objects {
		return interfaces[rig.NetworkName]["Name"].Value().(string)
	}
	return ""
}
