package tests

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/dbus"
)

// needed are the actions that each method of the contract needs, with arguments
// that are all right; what is in no list is open to everybody.
type needed struct {
	actions string // their last parts
	args    []any
}

func (r *rig) methodsAndActions() map[string]needed {
	xml := netXML("more", "virbr6", "nat", "10.6.0.1/24")
	zone := opts("Zone", "trusted")
	const networks, zones = "manage-networks", "manage-zones"
	return map[string]needed{
		managerName + ".AddNetwork":                            {networks, []any{"more", opts("Bridge", "virbr6"), opts()}},
		managerName + ".AddNetworkFromXML":                     {networks, []any{xml, opts()}},
		managerName + ".RemoveNetwork":                         {networks, []any{"lab", opts("Persistent", true)}},
		managerName + ".GetNetwork":                            {"read", []any{"lab"}},
		managerName + ".GetNetworkByBridge":                    {"read", []any{"virbr5"}},
		managerName + ".ListNetworks":                          {"read", nil},
		managerName + ".Preview":                               {"read", []any{xml, ""}},
		managerName + ".SetBackend":                            {"choose-backend", []any{"iptables", opts()}},
		managerName + ".Reload":                                {"reload", nil},
		managerName + ".Reapply":                               {"reload", nil},
		managerName + ".InstallZones":                          {zones, []any{opts()}},
		managerName + ".RemoveZones":                           {zones, []any{opts()}},
		managerName + ".BindInterface":                         {zones, []any{"virbr5", "trusted"}},
		managerName + ".UnbindInterface":                       {zones, []any{"virbr5"}},
		managerName + ".Diagnose":                              {"diagnose", nil},
		networkName + ".Update":                                {networks + " " + zones, []any{zone, opts()}},
		networkName + ".GetRuleset":                            {"read", nil},
		networkName + ".GetCounters":                           {"read", nil},
		networkName + ".AddPortForward":                        {"manage-port-forwards", []any{opts(), opts()}},
		networkName + ".RemovePortForward":                     {"manage-port-forwards", []any{uint32(1), opts()}},
		propertiesName + ".Get":                                {"read", []any{networkName, "State"}},
		propertiesName + ".GetAll":                             {"read", []any{networkName}},
		"org.freedesktop.DBus.ObjectManager.GetManagedObjects": {"read", nil},
	}
}

// everybodys are the methods that tell nothing and change nothing.
var everybodys = []string{
	"org.freedesktop.DBus.Introspectable.Introspect",
	"org.freedesktop.DBus.Peer.Ping", "org.freedesktop.DBus.Peer.GetMachineId",
	propertiesName + ".Set", // refuses always
}

// walk calls visit for every method and property that introspection shows.
func (r *rig) walk(visit func(path godbus.ObjectPath, kind, name string)) {
	r.t.Helper()
	for _, path := range []godbus.ObjectPath{managerPath, dbus.NetworkPath("lab")} {
		var n node
		fatal(r.t, xml.Unmarshal([]byte(r.introspect(path)), &n))
		for _, i := range n.Interfaces {
			for _, m := range i.Members {
				for _, a := range m.Attrs {
					if a.Name.Local == "name" {
						visit(path, m.XMLName.Local, i.Name+"."+a.Value)
					}
				}
			}
		}
	}
}

// TestEveryMethodNeedsItsAction walks over all that introspection shows, as a
// user to whom all is denied and as users to whom all but one action is allowed.
func TestEveryMethodNeedsItsAction(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rules := rule("read", `subject.user == "u3000"`, "NO")
	actions := []string{"read", "manage-networks", "manage-port-forwards", "manage-zones", "choose-backend", "reload", "diagnose"}
	for i, action := range actions {
		rules += rule(action, fmt.Sprintf(`subject.user == "u%d"`, 3001+i), "NO")
	}
	rules += `polkit.addRule(function(action, subject) {
  if (action.id.indexOf("` + actionPrefix + `") == 0) return subject.user == "u3000" ? polkit.Result.NO : polkit.Result.YES;
});`
	r.rules(rules)
	r.Polkit()
	r.StartDaemon()
	r.must(r.AddXML(netXML("lab", "virbr5", "nat", natNet), "Persistent", true))
	before, properties := nft(r.Host, "list", "ruleset"), r.everyProperty()
	nobody := r.as(3000)
	deniedOne := map[string]*person{}
	for i, action := range actions {
		deniedOne[action] = r.as(3001 + i)
	}
	table, called, seen := r.methodsAndActions(), map[string]bool{}, 0
	r.walk(func(path godbus.ObjectPath, kind, name string) {
		switch kind {
		case "property":
			dot := strings.LastIndex(name, ".")
			r.wantDenied(nobody.call(path, propertiesName+".Get", name[:dot], name[dot+1:]), actionPrefix+"read")
			set := nobody.call(path, propertiesName+".Set", name[:dot], name[dot+1:], godbus.MakeVariant("x"))
			r.wantError(set, "org.freedesktop.DBus.Error.PropertyReadOnly")
			seen++
		case "method":
			if slices.Contains(everybodys, name) {
				return
			}
			n, ok := table[name]
			if !ok {
				t.Errorf("%s is in no list of actions", name)
				return
			}
			called[name] = true
			args := n.args
			if strings.HasPrefix(name, propertiesName) && path == managerPath {
				args = []any{managerName, "Version"}[:len(args)]
			}
			r.wantDenied(nobody.call(path, name, args...))
			for _, action := range strings.Fields(n.actions) {
				r.wantDenied(deniedOne[action].call(path, name, args...), actionPrefix+action)
			}
			seen++
		}
	})
	if len(called) != len(table) || seen < 40 {
		t.Errorf("%d members were seen, and %d of %d methods called", seen, len(called), len(table))
	}
	r.must(nobody.call(managerPath, everybodys[0]))
	r.must(nobody.call(managerPath, everybodys[1]))
	r.must(nobody.call(managerPath, everybodys[2]))
	if after := nft(r.Host, "list", "ruleset"); after != before {
		t.Errorf("the denied calls changed the kernel:\n%s\n%s", before, after)
	}
	if after := r.everyProperty(); after != properties {
		t.Errorf("the denied calls changed\n%s to\n%s", properties, after)
	}
}

func (r *rig) everyProperty() string {
	r.t.Helper()
	var objects map[godbus.ObjectPath]map[string]map[string]godbus.Variant
	r.must(r.Call(managerPath, "org.freedesktop.DBus.ObjectManager.GetManagedObjects"), &objects)
	var host map[string]godbus.Variant
	r.must(r.Call(managerPath, propertiesName+".GetAll", managerName), &host)
	return fmt.Sprint(objects, host)
}
