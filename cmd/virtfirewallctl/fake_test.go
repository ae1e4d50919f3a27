package main_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/cmd/virtfirewallctl/client"
)

const contract = "org.virtfirewall.NetworkFirewall1"

// fake is a fake of the service on the bus, which can have faults on demand. Its
// two networks never change.
type fake struct {
	conn *dbus.Conn

	mu       sync.Mutex
	calls    []string // changing calls
	monitors int      // reads of the manager's properties since the last look
	found    string   // what Diagnose answers
}

func newFake(t testing.TB, address string) *fake {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatalf("connecting the fake service: %v", err)
	}
	f := &fake{conn: conn}
	t.Cleanup(func() { conn.Close() })
	for path, interfaces := range f.tables() {
		for iface, methods := range interfaces {
			if err := conn.ExportMethodTable(methods, path, iface); err != nil {
				t.Fatalf("exporting %s: %v", iface, err)
			}
		}
	}
	f.own(t)
	return f
}

func (f *fake) own(t testing.TB) {
	t.Helper()
	reply, err := f.conn.RequestName(contract, dbus.NameFlagDoNotQueue)
	if err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("owning %s: %v %v", contract, reply, err)
	}
}

type table = map[string]any

func (f *fake) tables() map[dbus.ObjectPath]map[string]table {
	networks := map[dbus.ObjectPath]map[string]table{
		client.ManagerPath: {
			contract:                          f.manager(),
			"org.freedesktop.DBus.Properties": {"GetAll": f.hostProperties},
			"org.freedesktop.DBus.ObjectManager": {"GetManagedObjects": func() (
				map[dbus.ObjectPath]map[string]map[string]dbus.Variant, *dbus.Error) {
				objects := map[dbus.ObjectPath]map[string]map[string]dbus.Variant{}
				for path, p := range fakeNetworks() {
					objects[path] = map[string]map[string]dbus.Variant{contract + ".Network": p}
				}
				return objects, nil
			}},
		},
	}
	for path, p := range fakeNetworks() {
		name := p["Name"].Value().(string)
		networks[path] = map[string]table{
			"org.freedesktop.DBus.Properties": {"GetAll": func(string) (map[string]dbus.Variant, *dbus.Error) {
				return p, nil
			}},
			contract + ".Network": {
				"GetRuleset": func() (string, *dbus.Error) {
					return "table inet libvirt_network {\n\tchain " + name + "_from {\n\t}\n}\n", nil
				},
				"GetCounters": func() (map[string]uint64, *dbus.Error) {
					return map[string]uint64{"FromGuestPackets": 12, "FromGuestBytes": 3456,
						"ToGuestPackets": 10, "ToGuestBytes": 1 << 40, "RejectedFromGuestPackets": 1}, nil
				},
			},
		}
	}
	return networks
}

func (f *fake) manager() table {
	add := func(m dbus.Message, xml string, o map[string]dbus.Variant) (dbus.ObjectPath, *dbus.Error) {
		if !strings.Contains(xml, "<network") {
			return "", failed("InvalidArgument", "The document is not a libvirt network: it has no <network>.")
		}
		return networkPath("default"), f.changed(m, "AddNetworkFromXML", "", o)
	}
	return table{
		"AddNetworkFromXML": add,
		"RemoveNetwork": func(m dbus.Message, name string, o map[string]dbus.Variant) *dbus.Error {
			return f.changed(m, "RemoveNetwork", name, o)
		},
		"GetNetwork": func(name string) (dbus.ObjectPath, *dbus.Error) {
			return networkPath(name), known(name)
		},
		"Preview": func(xml, backend string) (string, *dbus.Error) {
			return "# rules for " + backend + "\n", nil
		},
		"SetBackend": func(m dbus.Message, backend string, o map[string]dbus.Variant) *dbus.Error {
			if backend == "iptables" {
				return &dbus.Error{Name: "org.freedesktop.DBus.Error.NotSupported",
					Body: []any{"the iptables backend is not part of this version; use nftables"}}
			}
			return f.changed(m, "SetBackend", backend, o)
		},
		"Reload":  func(m dbus.Message) *dbus.Error { return f.changed(m, "Reload", "", nil) },
		"Reapply": func(m dbus.Message) (uint32, *dbus.Error) { return 2, f.changed(m, "Reapply", "", nil) },
		"InstallZones": func(m dbus.Message, o map[string]dbus.Variant) ([]string, *dbus.Error) {
			return []string{"libvirt", "libvirt-routed"}, f.changed(m, "InstallZones", "", o)
		},
		"RemoveZones": func(m dbus.Message, o map[string]dbus.Variant) ([]string, *dbus.Error) {
			removed := []string{"libvirt"}
			if _, forced := o["Force"]; forced {
				removed = nil
			}
			return removed, f.changed(m, "RemoveZones", "", o)
		},
		"BindInterface": func(m dbus.Message, iface, zone string) (string, *dbus.Error) {
			if zone == "" {
				zone = "libvirt"
			}
			if zone == "nowhere" {
				return "", failed("ZoneNotFound", "firewalld has no zone nowhere")
			}
			return zone, f.changed(m, "BindInterface", iface+" "+zone, nil)
		},
		"Diagnose": f.diagnose,
		"UnbindInterface": func(m dbus.Message, iface string) *dbus.Error {
			return f.changed(m, "UnbindInterface", iface, nil)
		},
	}
}

// diagnose returns the findings that the script has set.
func (f *fake) diagnose(m dbus.Message) ([]map[string]dbus.Variant, *dbus.Error) {
	f.mu.Lock()
	found := f.found
	f.mu.Unlock()
	info := finding("csum-missing", "info", "", "the kernel has no tc action csum", "", "")
	switch found {
	case "information":
		return []map[string]dbus.Variant{info}, nil
	case "faults":
		return []map[string]dbus.Variant{info,
			finding("bridge-absent", "warning", "lab-net", "bridge virbr1 does not exist", "", "create the bridge"),
			finding("forwarding-off", "error", "", "net.ipv4.ip_forward is 0", "read at 12:00\nby sysctl", "run `sysctl net.ipv4.ip_forward=1`"),
		}, nil
	case "denied":
		return nil, &dbus.Error{Name: "org.freedesktop.DBus.Error.AccessDenied", Body: []any{"only an administrator may diagnose; use sudo"}}
	case "broken":
		return nil, failed("ApplyFailed", "reading the rules: interrupted system call")
	}
	return nil, nil
}

func finding(id, severity, network, summary, evidence, remedy string) map[string]dbus.Variant {
	return map[string]dbus.Variant{"Id": dbus.MakeVariant(id), "Severity": dbus.MakeVariant(severity), "Network": dbus.MakeVariant(network),
		"Summary": dbus.MakeVariant(summary), "Evidence": dbus.MakeVariant(evidence), "Remedy": dbus.MakeVariant(remedy)}
}

// changed records a changing call, or fails it in the way that its first
// argument is named after.
func (f *fake) changed(m dbus.Message, method, arg string, o map[string]dbus.Variant) *dbus.Error {
	call := method
	if arg != "" {
		call += " " + arg
	}
	var names []string
	for name, v := range o {
		names = append(names, fmt.Sprintf(" %s=%v", name, v.Value()))
	}
	slices.Sort(names)
	call += strings.Join(names, "")
	if m.Flags&dbus.FlagAllowInteractiveAuthorization != 0 {
		call += " interactive"
	}
	f.mu.Lock()
	f.calls = append(f.calls, call)
	f.mu.Unlock()
	switch arg {
	case "denied":
		return &dbus.Error{Name: "org.freedesktop.DBus.Error.AccessDenied",
			Body: []any{"Only root may change networks; run the command with sudo."}}
	case "interactive":
		return &dbus.Error{Name: "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
			Body: []any{"removing the network needs an administrator to authenticate"}}
	case "vanish":
		f.conn.Close()
	case "slow":
		<-f.conn.Context().Done()
	}
	return known(arg)
}

// known returns an error for the one name that is no network.
func known(name string) *dbus.Error {
	if name == "absent" {
		return failed("NetworkNotFound", "there is no network absent; virtfirewallctl list shows those there are")
	}
	return nil
}

func failed(name, text string) *dbus.Error {
	return &dbus.Error{Name: contract + ".Error." + name, Body: []any{text}}
}

func networkPath(name string) dbus.ObjectPath {
	return client.ManagerPath + "/network/" + dbus.ObjectPath(strings.ReplaceAll(name, "-", "_2d"))
}

func (f *fake) hostProperties(string) (map[string]dbus.Variant, *dbus.Error) {
	f.mu.Lock()
	f.monitors++
	f.mu.Unlock()
	return map[string]dbus.Variant{
		"Version":           dbus.MakeVariant("1.2.3"),
		"Backend":           dbus.MakeVariant("nftables"),
		"ConfiguredBackend": dbus.MakeVariant("auto"),
		"BackendSource":     dbus.MakeVariant("probe"),
		"AvailableBackends": dbus.MakeVariant([]string{"nftables"}),
		"FirewalldRunning":  dbus.MakeVariant(true),
		"FirewalldBackend":  dbus.MakeVariant("nftables"),
		"InstalledZones":    dbus.MakeVariant([]string{"libvirt"}),
	}, nil
}

func fakeNetworks() map[dbus.ObjectPath]map[string]dbus.Variant {
	networks := map[dbus.ObjectPath]map[string]dbus.Variant{}
	for _, n := range []map[string]any{
		{"Name": "default", "UUID": "81ff0d90-c91e-6742-64da-4a736edb9a9b", "Bridge": "virbr0",
			"BridgeIndex": int32(7), "Persistent": true, "Backend": "nftables", "State": "active",
			"StateReason": "", "StateCode": "", "BoundZone": "libvirt", "Zone": "", "ForwardMode": "nat",
			"ForwardDevices": []string{}, "Addresses": []string{"192.168.122.1/24"}, "Routes": []string{},
			"NATAddressRange": "", "NATPortRange": "", "NATIPv6": false, "IPv6Guests": false,
			"DHCP": true, "DNS": true, "TFTP": false, "PortForwards": []map[string]dbus.Variant{}},
		{"Name": "lab-net", "UUID": "0d2e1b52-8f0c-4c8e-9c8b-3a1f5c2d7e11", "Bridge": "virbr1",
			"BridgeIndex": int32(0), "Persistent": false, "Backend": "nftables", "State": "waiting",
			"StateReason": "the bridge virbr1 does not exist yet", "StateCode": "bridge-absent", "BoundZone": "", "Zone": "trusted",
			"ForwardMode": "route", "ForwardDevices": []string{"eth0", "eth1"},
			"Addresses": []string{"10.20.0.1/16", "fd00:20::1/64"}, "Routes": []string{"10.9.0.0/16"},
			"NATAddressRange": "", "NATPortRange": "", "NATIPv6": false, "IPv6Guests": true,
			"DHCP": false, "DNS": true, "TFTP": true, "PortForwards": []map[string]dbus.Variant{{
				"Id": dbus.MakeVariant(uint32(1)), "Protocol": dbus.MakeVariant("tcp"),
				"HostAddress": dbus.MakeVariant(""), "HostPort": dbus.MakeVariant(uint16(8080)),
				"GuestAddress": dbus.MakeVariant("10.20.0.5"), "GuestPort": dbus.MakeVariant(uint16(80))}}},
	} {
		p := map[string]dbus.Variant{}
		for key, v := range n {
			p[key] = dbus.MakeVariant(v)
		}
		networks[networkPath(n["Name"].(string))] = p
	}
	return networks
}

// emit sends the signals of one event.
func (f *fake) emit(what string) error {
	path := networkPath("lab-net")
	switch what {
	case "added":
		return f.conn.Emit(client.ManagerPath, contract+".NetworkAdded", "lab-net", path)
	case "removed":
		return f.conn.Emit(client.ManagerPath, contract+".NetworkRemoved", "lab-net", path)
	case "backend":
		return f.conn.Emit(client.ManagerPath, contract+".BackendChanged", "nftables", "iptables")
	case "repaired":
		return f.conn.Emit(client.ManagerPath, contract+".Repaired", "lab-net", "the table was deleted")
	case "changed":
		return f.conn.Emit(path, "org.freedesktop.DBus.Properties.PropertiesChanged", contract+".Network",
			map[string]dbus.Variant{"State": dbus.MakeVariant("active"), "BridgeIndex": dbus.MakeVariant(int32(9))},
			[]string{})
	case "host":
		return f.conn.Emit(client.ManagerPath, "org.freedesktop.DBus.Properties.PropertiesChanged", contract,
			map[string]dbus.Variant{"FirewalldRunning": dbus.MakeVariant(false)}, []string{})
	case "strange":
		return f.conn.Emit(client.ManagerPath, contract+".NetworkAdded", uint32(1))
	case "stopped":
		_, err := f.conn.ReleaseName(contract)
		return err
	}
	return fmt.Errorf("the fake service has no %q", what)
}

// calledWith removes a call from the record; ok is false if it has none.
func (f *fake) calledWith(call string) (record []string, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	record = slices.Clone(f.calls)
	i := slices.Index(f.calls, call)
	if i < 0 {
		return record, false
	}
	f.calls = slices.Delete(f.calls, i, i+1)
	return record, true
}

// awaitMonitor waits until a monitor has subscribed: it reads the manager's
// properties when it has.
func (f *fake) awaitMonitor() bool {
	return eventually(func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.monitors == 0 {
			return false
		}
		f.monitors = 0
		return true
	})
}

// eventually polls until f returns true, for at most ten seconds.
func eventually(yes func() bool) bool {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if yes() {
			return true
		}
	}
	return false
}
