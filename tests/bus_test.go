package tests

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
)

const notSupported = "org.freedesktop.DBus.Error.NotSupported"

// node is introspection data, in a form that two documents can be compared in:
// each interface's members as a sorted list of lines.
type node struct {
	Interfaces []struct {
		Name    string `xml:"name,attr"`
		Members []struct {
			XMLName xml.Name
			Attrs   []xml.Attr `xml:",any,attr"`
			Inner   string     `xml:",innerxml"`
		} `xml:",any"`
	} `xml:"interface"`
	Children []struct {
		Name string `xml:"name,attr"`
	} `xml:"node"`
}

var (
	comments = regexp.MustCompile(`(?s)<!--.*?-->`)
	notes    = regexp.MustCompile(`<annotation [^>]*?(/>|></annotation>)`)
	closed   = regexp.MustCompile(`></(arg|annotation|method|property)>`)
	spaces   = regexp.MustCompile(`\s+`)
)

// members are the lines of each interface. Annotations are left out where the
// other document, the contract, has none.
func members(t *testing.T, doc string, annotated bool) map[string][]string {
	t.Helper()
	var n node
	if err := xml.Unmarshal([]byte(doc), &n); err != nil {
		t.Fatal(err)
	}
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

func (r *rig) introspect(path godbus.ObjectPath) (doc string) {
	r.t.Helper()
	r.must(r.Call(path, "org.freedesktop.DBus.Introspectable.Introspect"), &doc)
	return doc
}

// TestIntrospection compares what the live objects show with the project's
// XML, and that with the contract.
func TestIntrospection(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	r.must(r.AddXML(netXML("lab", "virbr5", "nat", natNet)))
	r.must(r.AddXML(netXML("straße 7", "virbr7", "isolated", "10.7.0.1/24")))
	files := map[string]map[string][]string{}
	for name, annotated := range map[string]bool{"live": true, "plain": false} {
		doc, err := os.ReadFile("../dbus/" + managerName + ".xml")
		if err != nil {
			t.Fatal(err)
		}
		files[name] = members(t, string(doc), annotated)
	}
	contract, err := os.ReadFile("../dbus/testdata/contract.xml")
	if err != nil {
		t.Fatal(err)
	}
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
		{managerPath, managerName, append([]string{"ObjectManager"}, standard...), []string{"network"}},
		{dbus.NetworkPath("lab"), networkName, standard, nil},
		{dbus.NetworkPath("straße 7"), networkName, standard, nil},
		{managerPath + "/network", "", standard[:2], []string{"lab", "stra_c3_9fe_207"}},
		{"/org/virtfirewall", "", standard[:2], []string{"NetworkFirewall1"}},
		{"/org", "", standard[:2], []string{"virtfirewall"}},
		{"/", "", standard[:2], []string{"org"}},
	} {
		doc := r.introspect(c.path)
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
		if got := slices.Sorted(maps.Keys(live)); !slices.Equal(got, sorted(want)) {
			t.Errorf("%s has the interfaces %q, want %q", c.path, got, want)
		}
		var n node
		if err := xml.Unmarshal([]byte(doc), &n); err != nil {
			t.Fatal(err)
		}
		var children []string
		for _, child := range n.Children {
			children = append(children, child.Name)
		}
		if !slices.Equal(children, c.children) {
			t.Errorf("%s has the children %q, want %q", c.path, children, c.children)
		}
	}
	// Every property that introspection shows can be read, and no others.
	for path, iface := range map[godbus.ObjectPath]string{managerPath: managerName, dbus.NetworkPath("lab"): networkName} {
		var all map[string]godbus.Variant
		r.must(r.Call(path, propertiesName+".GetAll", iface), &all)
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
		if got := slices.Sorted(maps.Keys(all)); !slices.Equal(got, sorted(shown)) {
			t.Errorf("%s has the properties %q, introspection shows %q", iface, got, shown)
		}
	}
}

// TestSignalsOfEachChange follows a network's life.
func TestSignalsOfEachChange(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.configure("own_table = false") // others may flush it then
	r.StartDaemon()
	f := r.Follow()
	want := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, f.all()); diff != "" {
			t.Errorf("%s (-want +heard):\n%s", what, diff)
		}
	}
	r.Bridge("virbr5") // without its address, which would keep the network from another bridge
	index := r.index("virbr5")
	r.must(r.AddXML(netXML("lab", "virbr5", "nat", natNet)))
	want("add", "InterfacesAdded lab ["+networkName+"]", "NetworkAdded lab lab")
	r.must(r.Network("lab", "Update", opts("ForwardMode", "route", "TFTP", true, "Routes", []string{"10.9.0.0/16"}), opts()))
	want("one change set", "PropertiesChanged lab ForwardMode=route Routes=[10.9.0.0/16] TFTP=true")
	r.must(r.Network("lab", "Update", opts("TFTP", true), opts()))
	want("a change that changes nothing")
	r.must(r.Network("lab", "Update", opts("Bridge", "virbr6"), opts("Persistent", true)))
	heard := f.all()
	if len(heard) != 2 || heard[1] != "FindingsChanged" || !containsAll(heard[0], []string{"PropertiesChanged lab Bridge=virbr6 BridgeIndex=0 Persistent=true State=waiting StateCode=bridge-missing StateReason=bridge virbr6"}) {
		t.Errorf("another bridge was told as %q", heard)
	}
	r.must(r.Network("lab", "Update", opts("Bridge", "virbr5"), opts("Persistent", true)))
	want("the bridge again", fmt.Sprintf("PropertiesChanged lab Bridge=virbr5 BridgeIndex=%d State=active StateCode= StateReason=", index), "FindingsChanged")
	r.must(r.AddXML(netXML("lab", "virbr5", "isolated", natNet), "Replace", true))
	want("replace", "PropertiesChanged lab ForwardMode=isolated Routes=[] TFTP=false")
	r.must(r.AddXML(strings.Replace(netXML("lab", "virbr5", "nat", natNet), "<name>",
		"<uuid>b9d7d1a4-6f6c-4f3a-9d7a-0a3c8a1f2b11</uuid><name>", 1), "Replace", true))
	want("replace by another", "NetworkRemoved lab lab", "InterfacesRemoved lab ["+networkName+"]",
		"InterfacesAdded lab ["+networkName+"]", "NetworkAdded lab lab")
	r.Must("nft", "flush", "ruleset")
	r.must(r.Manager("Reapply"))
	if heard := f.until("Repaired"); len(heard) != 1 || !strings.HasPrefix(heard[0], "Repaired lab ") {
		t.Errorf("a repair was told as %q", heard)
	}
	r.must(r.Manager("RemoveNetwork", "lab", opts("Persistent", true)))
	want("remove", "NetworkRemoved lab lab", "InterfacesRemoved lab ["+networkName+"]")
	r.wantError(r.Manager("RemoveNetwork", "lab", opts()), "NetworkNotFound")
	want("a call that failed")
}

// configure writes the service's configuration.
func (r *rig) configure(text string) {
	r.t.Helper()
	if err := r.WriteFile("/etc/virtfirewalld/virtfirewalld.conf", []byte(text+"\n"), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// index is a link's interface index.
func (r *rig) index(link string) (index int) {
	r.t.Helper()
	if _, err := fmt.Sscan(r.Must("cat", "/sys/class/net/"+link+"/ifindex"), &index); err != nil {
		r.t.Fatal(err)
	}
	return index
}

func TestObjectManagerAndLookups(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	var objects map[godbus.ObjectPath]map[string]map[string]godbus.Variant
	r.must(r.Call(managerPath, objectsName+".GetManagedObjects"), &objects)
	if len(objects) != 0 {
		t.Errorf("an empty service has objects: %v", objects)
	}
	var path godbus.ObjectPath
	for _, name := range []string{"zulu", "alpha", "mit Leer_zeichen"} {
		number := len(name)
		r.must(r.AddXML(lab(name, number)), &path)
		if path != dbus.NetworkPath(name) {
			t.Errorf("%s was added as %s", name, path)
		}
		r.must(r.Manager("GetNetwork", name), &path)
		if path != dbus.NetworkPath(name) {
			t.Errorf("GetNetwork(%s) = %s", name, path)
		}
		r.must(r.Manager("GetNetworkByBridge", fmt.Sprintf("virbr%d", number)), &path)
		if path != dbus.NetworkPath(name) {
			t.Errorf("GetNetworkByBridge of %s = %s", name, path)
		}
	}
	var listed []godbus.ObjectPath
	r.must(r.Manager("ListNetworks"), &listed)
	if want := []godbus.ObjectPath{dbus.NetworkPath("alpha"), dbus.NetworkPath("mit Leer_zeichen"), dbus.NetworkPath("zulu")}; !slices.Equal(listed, want) {
		t.Errorf("ListNetworks = %v", listed)
	}
	r.must(r.Call(managerPath, objectsName+".GetManagedObjects"), &objects)
	for _, path := range listed {
		var all map[string]godbus.Variant
		r.must(r.Call(path, propertiesName+".GetAll", networkName), &all)
		if diff := cmp.Diff(values(all), values(objects[path][networkName])); diff != "" || len(objects[path]) != 1 {
			t.Errorf("%s: GetManagedObjects and GetAll differ:\n%s", path, diff)
		}
	}
	r.wantError(r.Manager("GetNetwork", "nobody"), "NetworkNotFound")
	r.wantError(r.Manager("GetNetworkByBridge", "virbr99"), "NetworkNotFound")
	r.wantError(r.Network("nobody", "GetRuleset"), "org.freedesktop.DBus.Error.UnknownObject")
}

// lab is a NAT network on virbrNUMBER that needs no bridge.
func lab(name string, number int) string {
	return netXML(name, fmt.Sprintf("virbr%d", number), "nat", fmt.Sprintf("10.%d.0.1/24", number))
}

// TestUpdateIsOneStep changes several keys, and only those given.
func TestUpdateIsOneStep(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	r.Bridge("virbr5", "10.5.0.1/24")
	r.must(r.AddXML(corpus(t, "own-routes-and-services.xml")))
	name := r.onlyNetwork()
	before := r.settings(name)
	r.must(r.Network(name, "Update", opts("Bridge", "virbr5", "Addresses", []string{"10.5.0.1/24", "2001:db8:5::1/64"},
		"ForwardMode", "isolated", "Routes", []string{}, "DNS", false), opts()))
	want := maps.Clone(before)
	maps.Copy(want, map[string]string{"Bridge": "virbr5", "Addresses": "[10.5.0.1/24 2001:db8:5::1/64]", "ForwardMode": "isolated", "Routes": "[]", "DNS": "false"})
	if diff := cmp.Diff(want, r.settings(name)); diff != "" {
		t.Errorf("after Update (-want +got):\n%s", diff)
	}
	// One that is wrong in the last key changes none.
	all := r.everything()
	r.wantError(r.Network(name, "Update", opts("TFTP", true, "Addresses", []string{"10.6.0.1/24"}, "NATPortRange", "9-1"), opts()), "InvalidArgument")
	r.wantError(r.Network(name, "Update", opts("Name", "other"), opts()), "InvalidArgument")
	r.wantError(r.Network(name, "Update", opts("Colour", "red"), opts()), "InvalidArgument")
	r.wantError(r.Network(name, "Update", opts("TFTP", "yes"), opts()), "InvalidArgument")
	r.wantError(r.Network(name, "Update", opts("TFTP", true), opts("Replace", true)), "InvalidArgument")
	if diff := cmp.Diff(all, r.everything()); diff != "" {
		t.Errorf("failed updates changed something (-before +after):\n%s", diff)
	}
}

// settings are a network's settings as text, by key.
func (r *rig) settings(name string) map[string]string {
	r.t.Helper()
	var all map[string]godbus.Variant
	r.must(r.Call(dbus.NetworkPath(name), propertiesName+".GetAll", networkName), &all)
	out := map[string]string{}
	for _, key := range network.SettingKeys() {
		if v, ok := all[key]; ok {
			out[key] = fmt.Sprint(v.Value())
		}
	}
	return out
}

// onlyNetwork is the name of the one network that there is.
func (r *rig) onlyNetwork() string {
	r.t.Helper()
	var objects map[godbus.ObjectPath]map[string]map[string]godbus.Variant
	r.must(r.Call(managerPath, objectsName+".GetManagedObjects"), &objects)
	if len(objects) != 1 {
		r.t.Fatalf("there are %d networks", len(objects))
	}
	for _, interfaces := range objects {
		return interfaces[networkName]["Name"].Value().(string)
	}
	return ""
}
