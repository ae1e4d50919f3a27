package polkit

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/dbus"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// needed are the actions that each method of the contract needs, with arguments
// that are all right; what is in no list is open to everybody.
type needed struct {
	actions string // their last parts
	args    []any
}

func methodsAndActions(r *rig.Rig) map[string]needed {
	xml := rig.NetXML("more", "virbr6", "nat", "10.6.0.1/24")
	zone := rig.Opts("Zone", "trusted")
	const networks, zones = "manage-networks", "manage-zones"
	return map[string]needed{
		rig.ManagerName + ".AddNetwork":                        {networks, []any{"more", rig.Opts("Bridge", "virbr6"), rig.Opts()}},
		rig.ManagerName + ".AddNetworkFromXML":                 {networks, []any{xml, rig.Opts()}},
		rig.ManagerName + ".RemoveNetwork":                     {networks, []any{"lab", rig.Opts("Persistent", true)}},
		rig.ManagerName + ".GetNetwork":                        {"read", []any{"lab"}},
		rig.ManagerName + ".GetNetworkByBridge":                {"read", []any{"virbr5"}},
		rig.ManagerName + ".ListNetworks":                      {"read", nil},
		rig.ManagerName + ".Preview":                           {"read", []any{xml, ""}},
		rig.ManagerName + ".SetBackend":                        {"choose-backend", []any{"iptables", rig.Opts()}},
		rig.ManagerName + ".Reload":                            {"reload", nil},
		rig.ManagerName + ".Reapply":                           {"reload", nil},
		rig.ManagerName + ".InstallZones":                      {zones, []any{rig.Opts()}},
		rig.ManagerName + ".RemoveZones":                       {zones, []any{rig.Opts()}},
		rig.ManagerName + ".BindInterface":                     {zones, []any{"virbr5", "trusted"}},
		rig.ManagerName + ".UnbindInterface":                   {zones, []any{"virbr5"}},
		rig.ManagerName + ".Diagnose":                          {"diagnose", nil},
		rig.NetworkName + ".Update":                            {networks + " " + zones, []any{zone, rig.Opts()}},
		rig.NetworkName + ".GetRuleset":                        {"read", nil},
		rig.NetworkName + ".GetCounters":                       {"read", nil},
		rig.NetworkName + ".AddPortForward":                    {"manage-port-forwards", []any{rig.Opts(), rig.Opts()}},
		rig.NetworkName + ".RemovePortForward":                 {"manage-port-forwards", []any{uint32(1), rig.Opts()}},
		rig.PropertiesName + ".Get":                            {"read", []any{rig.NetworkName, "State"}},
		rig.PropertiesName + ".GetAll":                         {"read", []any{rig.NetworkName}},
		"org.freedesktop.DBus.ObjectManager.GetManagedObjects": {"read", nil},
	}
}

// everybodys are the methods that reveal and change nothing.
var everybodys = []string{
	"org.freedesktop.DBus.Introspectable.Introspect",
	"org.freedesktop.DBus.Peer.Ping", "org.freedesktop.DBus.Peer.GetMachineId",
	rig.PropertiesName + ".Set", // refuses always
}

// walk calls visit for every method and property that introspection shows.
func walk(r *rig.Rig, visit func(path godbus.ObjectPath, kind, name string)) {
	r.T.Helper()
	for _, path := range []godbus.ObjectPath{rig.ManagerPath, dbus.NetworkPath("lab")} {
		var n rig.Node
		rig.Must(r.T, xml.Unmarshal([]byte(r.Introspect(path)), &n))
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
	r := rig.New(t)
	rules := rig.Rule("read", `subject.user == "u3000"`, "NO")
	actions := []string{"read", "manage-networks", "manage-port-forwards", "manage-zones", "choose-backend", "reload", "diagnose"}
	for i, action := range actions {
		rules += rig.Rule(action, fmt.Sprintf(`subject.user == "u%d"`, 3001+i), "NO")
	}
	rules += `polkit.addRule(function(action, subject) {
  if (action.id.indexOf("` + rig.ActionPrefix + `") == 0) return subject.user == "u3000" ? polkit.Result.NO : polkit.Result.YES;
});`
	r.Polkit.Rules(rules)
	r.Polkit.Start()
	r.StartDaemon()
	r.OK(r.AddXML(rig.NetXML("lab", "virbr5", "nat", rig.NatNet), "Persistent", true))
	before, properties := rig.NFT(r.Host, "list", "ruleset"), everyProperty(r)
	nobody := r.As(3000)
	deniedOne := map[string]*rig.Person{}
	for i, action := range actions {
		deniedOne[action] = r.As(3001 + i)
	}
	table, called, seen := methodsAndActions(r), map[string]bool{}, 0
	walk(r, func(path godbus.ObjectPath, kind, name string) {
		switch kind {
		case "property":
			dot := strings.LastIndex(name, ".")
			r.WantDenied(nobody.Call(path, rig.PropertiesName+".Get", name[:dot], name[dot+1:]), rig.ActionPrefix+"read")
			set := nobody.Call(path, rig.PropertiesName+".Set", name[:dot], name[dot+1:], godbus.MakeVariant("x"))
			r.WantError(set, "org.freedesktop.DBus.Error.PropertyReadOnly")
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
			if strings.HasPrefix(name, rig.PropertiesName) && path == rig.ManagerPath {
				args = []any{rig.ManagerName, "Version"}[:len(args)]
			}
			r.WantDenied(nobody.Call(path, name, args...))
			for _, action := range strings.Fields(n.actions) {
				r.WantDenied(deniedOne[action].Call(path, name, args...), rig.ActionPrefix+action)
			}
			seen++
		}
	})
	if len(called) != len(table) || seen < 40 {
		t.Errorf("%d members were seen, and %d of %d methods called", seen, len(called), len(table))
	}
	r.OK(nobody.Call(rig.ManagerPath, everybodys[0]))
	r.OK(nobody.Call(rig.ManagerPath, everybodys[1]))
	r.OK(nobody.Call(rig.ManagerPath, everybodys[2]))
	rig.Same(t, "the denied calls changed the kernel", before, rig.NFT(r.Host, "list", "ruleset"))
	rig.Same(t, "the properties after denied calls", properties, everyProperty(r))
}

func everyProperty(r *rig.Rig) string {
	r.T.Helper()
	var objects map[godbus.ObjectPath]map[string]map[string]godbus.Variant
	r.OK(r.Call(rig.ManagerPath, "org.freedesktop.DBus.ObjectManager.GetManagedObjects"), &objects)
	var host map[string]godbus.Variant
	r.OK(r.Call(rig.ManagerPath, rig.PropertiesName+".GetAll", rig.ManagerName), &host)
	return fmt.Sprint(objects, host)
}
