package dbus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

const defaultXML = `<network><name>default</name><uuid>9a05da11-e96b-47f3-8253-a3a482e445f5</uuid>
<forward mode='nat'/><bridge name='virbr0'/><ip address='192.168.122.1' netmask='255.255.255.0'/></network>`

func options(pairs ...any) map[string]godbus.Variant {
	m := make(map[string]godbus.Variant)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i].(string)] = godbus.MakeVariant(pairs[i+1])
	}
	return m
}

// Each method that changes something passes the caller's arguments to the
// service, and replies with the service's result.
func TestChangesReachTheService(t *testing.T) {
	lab := NetworkPath("lab net")
	for _, c := range []struct {
		path   godbus.ObjectPath
		method string
		args   []any
		asked  string
		answer []any
	}{
		{ManagerPath, "AddNetwork", []any{"other", plainSettings("other"), options("Persistent", true)},
			"AddNetwork other " + bridgeOf("other") + " persistent=true replace=false source=0", []any{NetworkPath("other")}},
		{ManagerPath, "AddNetworkFromXML", []any{defaultXML, options("Replace", true)},
			fmt.Sprintf("AddNetwork default virbr0 persistent=false replace=true source=%d", len(defaultXML)), []any{NetworkPath("default")}},
		{ManagerPath, "RemoveNetwork", []any{"lab net", options("Persistent", true)}, "RemoveNetwork lab net persistent=true", nil},
		{ManagerPath, "SetBackend", []any{"iptables", options("Persistent", true)}, "SetBackend iptables persistent=true", nil},
		{ManagerPath, "Reload", nil, "Reload", nil},
		{ManagerPath, "Reapply", nil, "Reapply", []any{uint32(3)}},
		{ManagerPath, "InstallZones", []any{options("Force", true)}, "InstallZones force=true", []any{[]string{"libvirt"}}},
		{ManagerPath, "RemoveZones", []any{options("Unbind", true)}, "RemoveZones force=false unbind=true", []any{[]string{}}},
		{ManagerPath, "BindInterface", []any{"virbr0", ""}, `BindInterface virbr0 ""`, []any{"libvirt"}},
		{ManagerPath, "UnbindInterface", []any{"virbr0"}, "UnbindInterface virbr0", nil},
		{lab, "Update", []any{options("ForwardMode", "open", "DNS", false, "Routes", []string{"10.9.0.0/16"}), noOptions()},
			"UpdateNetwork lab net map[DNS:false ForwardMode:open Routes:[10.9.0.0/16]] persistent=false", nil},
	} {
		t.Run(c.method, func(t *testing.T) {
			r := newRig(t)
			r.add(t, "lab net")
			iface := managerInterface
			if c.path != ManagerPath {
				iface = networkInterface
			}
			call := r.callAt(c.path, iface+"."+c.method, c.args...)
			must(t, call.Err)
			asked := r.api.asked()
			if len(asked) != 2 || asked[1] != c.asked {
				t.Errorf("the service was asked for %q, want %q", asked[1:], c.asked)
			}
			if fmt.Sprintf("%#v", call.Body) != fmt.Sprintf("%#v", c.answer) {
				t.Errorf("the answer is %#v, want %#v", call.Body, c.answer)
			}
		})
	}
}

func TestReading(t *testing.T) {
	r := newRig(t)
	path := r.add(t, "lab.net")
	if want := godbus.ObjectPath(ManagerPath + "/network/lab_2enet"); path != want {
		t.Errorf("the path is %s, want %s", path, want)
	}
	var got godbus.ObjectPath
	must(t, r.call("GetNetwork", "lab.net").Store(&got))
	if got != path {
		t.Errorf("GetNetwork gives %s", got)
	}
	must(t, r.call("GetNetworkByBridge", bridgeOf("lab.net")).Store(&got))
	if got != path {
		t.Errorf("GetNetworkByBridge gives %s", got)
	}
	var all []godbus.ObjectPath
	must(t, r.call("ListNetworks").Store(&all))
	if !slices.Equal(all, []godbus.ObjectPath{path}) {
		t.Errorf("ListNetworks gives %v", all)
	}
	var text string
	must(t, r.call("Preview", defaultXML, "iptables").Store(&text))
	if text != `preview default "iptables"` {
		t.Errorf("Preview gives %q", text)
	}
	// The fake's text holds a NUL and a byte that is not UTF-8.
	must(t, r.callAt(path, networkInterface+".GetRuleset").Store(&text))
	if text != "chain lab.net { }\uFFFD\uFFFD\n" {
		t.Errorf("GetRuleset gives %q", text)
	}
	var counters map[string]uint64
	must(t, r.callAt(path, networkInterface+".GetCounters").Store(&counters))
	if counters["FromGuestPackets"] != 1<<40 {
		t.Errorf("GetCounters gives %v", counters)
	}
	if n := len(r.api.asked()); n != 1 {
		t.Errorf("%d changes were asked for, want the one that added the network", n)
	}
}

func TestPeerAnswersForTheMachine(t *testing.T) {
	r := newRig(t)
	var id string
	must(t, r.callAt("/any/where", peerInterface+".GetMachineId").Store(&id))
	want, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		want, err = os.ReadFile("/var/lib/dbus/machine-id")
	}
	must(t, err)
	if id != strings.TrimSpace(string(want)) {
		t.Errorf("GetMachineId gives %s, want %s", id, want)
	}
	must(t, r.callAt("/any/where", peerInterface+".Ping").Err)
	wantError(t, r.callAt(ManagerPath, peerInterface+".Reload").Err, errUnknownMethod, "Reload")
}

func TestWrongCalls(t *testing.T) {
	r := newRig(t)
	path := r.add(t, "lab")
	long := strings.Repeat("x", 2000)
	manager := managerInterface + "."
	get, set := propertiesInterface+".Get", propertiesInterface+".Set"
	invalidArgument, limit := errorPrefix+"InvalidArgument", errorPrefix+"LimitExceeded"
	for _, c := range []struct {
		what   string
		path   godbus.ObjectPath
		method string
		args   []any
		name   string
		text   string
	}{
		{"no such network", NetworkPath("none"), networkInterface + ".GetRuleset", nil, errUnknownObject, "no object"},
		{"no such object", "/elsewhere", manager + "Reload", nil, errUnknownObject, "/elsewhere"},
		{"another spelling of a path", networksPath + "/_6cab", networkInterface + ".GetRuleset", nil, errUnknownObject, "_6cab"},
		{"no such interface", ManagerPath, "org.example.Other.Reload", nil, errUnknownInterface, "org.example.Other"},
		{"interface of the other object", path, manager + "Reload", nil, errUnknownInterface, ""},
		{"manager's interface on a parent", networksPath, propertiesInterface + ".GetAll", []any{""}, errUnknownInterface, ""},
		{"no such method", ManagerPath, manager + "Explode", nil, errUnknownMethod, "Explode"},
		{"too few arguments", ManagerPath, manager + "GetNetwork", nil, errInvalidArgs, `"s"`},
		{"too many arguments", ManagerPath, manager + "Reload", []any{"x"}, errInvalidArgs, `"s"`},
		{"wrong type", ManagerPath, manager + "GetNetwork", []any{uint32(1)}, errInvalidArgs, `"u"`},
		{"unknown property", path, get, []any{networkInterface, "Colour"}, errUnknownProperty, "Colour"},
		{"property of an unknown interface", path, get, []any{"org.example.Other", "Name"}, errUnknownInterface, ""},
		{"property of an interface without any", path, get, []any{peerInterface, "Name"}, errUnknownProperty, ""},
		{"setting a property", path, set, []any{networkInterface, "DNS", godbus.MakeVariant(true)}, errPropertyReadOnly, "Update"},
		{"setting no property", path, set, []any{networkInterface, "Colour", godbus.MakeVariant(1)}, errUnknownProperty, ""},
		{"unknown network", ManagerPath, manager + "GetNetwork", []any{"none"}, errorPrefix + "NetworkNotFound", "virtfirewallctl list"},
		{"unknown bridge", ManagerPath, manager + "GetNetworkByBridge", []any{"br9"}, errorPrefix + "NetworkNotFound", "br9"},
		{"known network", ManagerPath, manager + "AddNetwork", []any{"lab", plainSettings("lab"), noOptions()}, errorPrefix + "NetworkExists", ""},
		{"unknown option", ManagerPath, manager + "RemoveNetwork", []any{"lab", options("Replace", true)}, invalidArgument, "Persistent"},
		{"option of the wrong type", ManagerPath, manager + "InstallZones", []any{options("Force", "yes")}, invalidArgument, "boolean"},
		{"unknown setting", path, networkInterface + ".Update", []any{options("Colour", "red"), noOptions()}, invalidArgument, "Colour"},
		{"setting of the wrong type", ManagerPath, manager + "AddNetwork", []any{"n", options("Bridge", "br0", "DNS", "yes"), noOptions()}, invalidArgument, "DNS"},
		{"setting of a strange type", ManagerPath, manager + "AddNetwork", []any{"n", options("Bridge", uint32(1)), noOptions()}, invalidArgument, "Bridge"},
		{"no such document", ManagerPath, manager + "AddNetworkFromXML", []any{"<network>", noOptions()}, invalidArgument, ""},
		{"no such backend", ManagerPath, manager + "SetBackend", []any{"pf", noOptions()}, invalidArgument, "nftables"},
		{"no such backend to show", ManagerPath, manager + "Preview", []any{defaultXML, "auto"}, invalidArgument, "nftables"},
		{"document too large", ManagerPath, manager + "AddNetworkFromXML", []any{defaultXML + strings.Repeat(" ", network.MaxXMLBytes), noOptions()}, limit, "1048576"},
		{"document far too large", ManagerPath, manager + "Preview", []any{strings.Repeat(" ", 3<<20), ""}, limit, ""},
		{"too many settings", ManagerPath, manager + "AddNetwork", []any{"n", manySettings(), noOptions()}, limit, "100 settings"},
		{"too long a list", ManagerPath, manager + "AddNetwork", []any{"n", options("Routes", make([]string, 1000)), noOptions()}, limit, "Routes"},
		{"too long a name", ManagerPath, manager + "RemoveNetwork", []any{long, noOptions()}, limit, "2000"},
		{"too long a setting", ManagerPath, manager + "AddNetwork", []any{"n", options("Bridge", long), noOptions()}, limit, "Bridge"},
		{"port forwards", path, networkInterface + ".Update", []any{options("PortForwards", []map[string]godbus.Variant{options("HostPort", uint16(80))}), noOptions()}, errNotSupported, ""},
		{"one port forward", path, networkInterface + ".AddPortForward", []any{options("HostPort", uint16(80)), noOptions()}, errNotSupported, "later"},
		{"no port forward", path, networkInterface + ".RemovePortForward", []any{uint32(1), noOptions()}, errNotSupported, "later"},
	} {
		t.Run(c.what, func(t *testing.T) {
			wantError(t, r.callAt(c.path, c.method, c.args...).Err, c.name, c.text)
		})
	}
	if all := r.api.AllNetworks(); len(all) != 1 || !all[0].Network.DNS || len(all[0].Network.Routes) != 0 {
		t.Errorf("a failed call changed something: %+v", all)
	}
}

func manySettings() map[string]godbus.Variant {
	m := make(map[string]godbus.Variant)
	for i := range 100 {
		m[fmt.Sprint(i)] = godbus.MakeVariant(true)
	}
	return m
}

func TestCallWithoutInterface(t *testing.T) {
	r := newRig(t)
	must(t, r.callAt(ManagerPath, "Reload").Err)
	must(t, r.callAt(ManagerPath, "Ping").Err)
	wantError(t, r.callAt(ManagerPath, "GetRuleset").Err, errUnknownMethod, "")
}

// A call that wants no reply runs all the same, and gets none.
func TestNoReplyExpected(t *testing.T) {
	r := newRig(t)
	answers := make(chan *godbus.Message, 16)
	object := r.object(ManagerPath)
	for _, method := range []string{"Reload", "Explode", "Diagnose"} {
		must(t, object.Call(managerInterface+"."+method, godbus.FlagNoReplyExpected).Err)
	}
	r.client.Conn().Eavesdrop(answers)
	other := r.bus.connect(t)
	must(t, other.Conn().Object(BusName, ManagerPath).Call(managerInterface+".Reapply", 0).Err)
	eventually(t, "the call without an answer", func() bool { return slices.Contains(r.api.asked(), "Reload") })
	for len(answers) > 0 {
		if m := <-answers; m.Type != godbus.TypeSignal {
			t.Errorf("an answer came: %v", m)
		}
	}
}

func TestErrorNames(t *testing.T) {
	for _, c := range []struct {
		err  error
		name string
	}{
		{kinded(service.NetworkExists, ""), errorPrefix + "NetworkExists"},
		{kinded(service.NotSupported, ""), errNotSupported},
		{fmt.Errorf("adding: %w", kinded(service.SubnetOverlap, "")), errorPrefix + "SubnetOverlap"},
		{fmt.Errorf("x: %w", network.ErrInvalid), errorPrefix + "InvalidArgument"},
		{fmt.Errorf("x: %w", network.ErrLimit), errorPrefix + "LimitExceeded"},
		{fmt.Errorf("x: %w", network.ErrNotSupported), errNotSupported},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), errTimeout},
		{fmt.Errorf("x: %w", ErrAccessDenied), errAccessDenied},
		{fmt.Errorf("x: %w", ErrInteractionRequired), errInteractive},
		{refuse(errUnknownObject, ""), errUnknownObject},
		{errors.New("anything"), errorPrefix + "ApplyFailed"},
	} {
		if got := errorName(c.err); got != c.name {
			t.Errorf("%v is %s, want %s", c.err, got, c.name)
		}
	}
}

// Text that D-Bus cannot carry must not leave the caller without an answer.
func TestErrorTextIsAlwaysSendable(t *testing.T) {
	r := newRig(t)
	for _, text := range []string{"a\xffb", "a\x00b", strings.Repeat("\u00e9", 1<<20)} {
		r.api.setFault(func(context.Context) error { return kinded(service.ApplyFailed, text) })
		err := r.call("Reload").Err
		wantError(t, err, errorPrefix+"ApplyFailed", "")
		if len(err.Error()) > maxErrorText+8 {
			t.Errorf("the text has %d bytes", len(err.Error()))
		}
	}
}
