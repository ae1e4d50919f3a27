package bus

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// portForward is one that would be right.
func portForward() map[string]godbus.Variant {
	return rig.Opts("Protocol", "tcp", "HostAddress", "", "HostPort", uint16(8080), "GuestAddress", "192.168.122.10", "GuestPort", uint16(80))
}

// TestErrorNames makes each call fail in each way that the contract has a name
// for, and sees that nothing changed.
func TestErrorNames(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.Bridge("virbr0", rig.NatNet)
	r.Bridge("virbr7", "10.70.0.1/24")
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	before := r.Everything()
	other := rig.NetXML("other", "virbr1", "nat", "10.1.0.1/24")
	settings := rig.Opts("Bridge", "virbr1", "Addresses", []string{"10.1.0.1/24"})
	many := make([]string, 65)
	for i := range many {
		many[i] = fmt.Sprintf("10.%d.0.1/24", i)
	}
	for what, c := range map[string]struct {
		call *godbus.Call
		want string
	}{
		"a name that is taken":       {r.AddXML(rig.NetXML("default", "virbr1", "nat", "10.1.0.1/24")), "NetworkExists"},
		"a name, by settings":        {r.Manager("AddNetwork", "default", settings, rig.Opts()), "NetworkExists"},
		"a bridge that is taken":     {r.AddXML(rig.NetXML("other", "virbr0", "nat", "10.1.0.1/24")), "BridgeInUse"},
		"a subnet that is taken":     {r.AddXML(rig.NetXML("other", "virbr1", "nat", "192.168.0.1/16")), "SubnetOverlap"},
		"a subnet of the host":       {r.AddXML(rig.NetXML("other", "virbr1", "nat", "10.70.0.5/24")), "SubnetOverlap"},
		"no such network":            {r.Manager("RemoveNetwork", "other", rig.Opts()), "NetworkNotFound"},
		"no such network, for ever":  {r.Manager("RemoveNetwork", "other", rig.Opts("Persistent", true)), "NetworkNotFound"},
		"no XML":                     {r.AddXML("network"), "InvalidArgument"},
		"a document too long":        {r.AddXML(other + strings.Repeat(" ", 1<<20)), "LimitExceeded"},
		"too many addresses":         {r.Manager("AddNetwork", "other", rig.Opts("Bridge", "virbr1", "Addresses", many), rig.Opts()), "LimitExceeded"},
		"an unknown option":          {r.AddXML(other, "Color", true), "InvalidArgument"},
		"an option of another call":  {r.AddXML(other, "Force", true), "InvalidArgument"},
		"an option of a wrong type":  {r.AddXML(other, "Persistent", "yes"), "InvalidArgument"},
		"an unknown setting":         {r.Manager("AddNetwork", "other", rig.Opts("Bridge", "virbr1", "Mode", "nat"), rig.Opts()), "InvalidArgument"},
		"a setting of a wrong type":  {r.Manager("AddNetwork", "other", rig.Opts("Bridge", int32(1)), rig.Opts()), "InvalidArgument"},
		"no bridge":                  {r.Manager("AddNetwork", "other", rig.Opts("ForwardMode", "nat"), rig.Opts()), "InvalidArgument"},
		"a hostile name":             {r.Manager("AddNetwork", "../../etc/passwd", settings, rig.Opts()), "InvalidArgument"},
		"a name too long":            {r.Manager("AddNetwork", strings.Repeat("n", 129), settings, rig.Opts()), "InvalidArgument"},
		"an unknown backend":         {r.Manager("SetBackend", "pf", rig.Opts()), "InvalidArgument"},
		"no backend":                 {r.Manager("SetBackend", "", rig.Opts()), "InvalidArgument"},
		"preview, unknown backend":   {r.Manager("Preview", other, "pf"), "InvalidArgument"},
		"preview, a taken bridge":    {r.Manager("Preview", rig.NetXML("other", "virbr0", "nat", "10.1.0.1/24"), ""), "BridgeInUse"},
		"binding without firewalld":  {r.Manager("BindInterface", "virbr0", "trusted"), "FirewalldNotRunning"},
		"unbinding without it":       {r.Manager("UnbindInterface", "virbr0"), "FirewalldNotRunning"},
		"binding a stranger":         {r.Manager("BindInterface", "lo", ""), "NetworkNotFound"},
		"later: forwards":            {r.Network("default", "AddPortForward", portForward(), rig.Opts()), notSupported},
		"later: forwards, removal":   {r.Network("default", "RemovePortForward", uint32(1), rig.Opts()), notSupported},
		"later: forwards as setting": {r.Network("default", "Update", rig.Opts("PortForwards", []map[string]godbus.Variant{portForward()}), rig.Opts()), notSupported},
		"no such method":             {r.Manager("Frobnicate"), "org.freedesktop.DBus.Error.UnknownMethod"},
		"a wrong signature":          {r.Manager("RemoveNetwork", "default"), "org.freedesktop.DBus.Error.InvalidArgs"},
		"no such property":           {r.Call(rig.ManagerPath, rig.PropertiesName+".Get", rig.ManagerName, "Colour"), "org.freedesktop.DBus.Error.UnknownProperty"},
		"setting a property": {r.Call(rig.ManagerPath, rig.PropertiesName+".Set", rig.ManagerName, "Backend", godbus.MakeVariant("iptables")),
			"org.freedesktop.DBus.Error.PropertyReadOnly"},
		"no such interface": {r.Call(rig.ManagerPath, rig.PropertiesName+".GetAll", "org.example.X"), "org.freedesktop.DBus.Error.UnknownInterface"},
		"no such object":    {r.Network("other", "GetCounters"), "org.freedesktop.DBus.Error.UnknownObject"},
	} {
		if !strings.Contains(c.want, ".") {
			c.want = rig.ErrorPrefix + c.want
		}
		if e, ok := c.call.Err.(godbus.Error); !ok || e.Name != c.want {
			t.Errorf("%s: %v, want %s", what, c.call.Err, c.want)
		}
	}
	if diff := cmp.Diff(before, r.Everything()); diff != "" {
		t.Errorf("failed calls changed something (-before +after):\n%s", diff)
	}
}

// TestReplaceIsOneStep: a network that takes another's place is there whole,
// and one that cannot leaves the other as it was.
func TestReplaceIsOneStep(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	r.OK(r.AddXML(rig.NetXML("other", "virbr1", "nat", "10.1.0.1/24")))
	before := r.Everything()
	r.WantError(r.AddXML(rig.NetXML("default", "virbr1", "nat", rig.NatNet), "Replace", true), "BridgeInUse")
	r.WantError(r.AddXML(rig.NetXML("default", "virbr0", "nat", "10.1.0.1/16"), "Replace", true), "SubnetOverlap")
	if diff := cmp.Diff(before, r.Everything()); diff != "" {
		t.Errorf("failed replacements changed something (-before +after):\n%s", diff)
	}
	r.OK(r.AddXML(rig.NetXML("default", "virbr2", "route", "10.2.0.1/24", "2001:db8:2::1/64"), "Replace", true))
	table := r.Table()
	for part, want := range map[string]bool{"virbr0": false, "192.168.122": false, "virbr2": true, "10.2.0.0": true, "2001:db8:2::": true} {
		if strings.Contains(table, part) != want {
			t.Errorf("the table has %s: %v\n%s", part, !want, table)
		}
	}
	if mode := r.Property("default", "ForwardMode"); mode != "route" {
		t.Errorf("the network's mode is %v", mode)
	}
	// Replacing what is not there adds it.
	r.OK(r.AddXML(rig.NetXML("third", "virbr0", "isolated", rig.NatNet), "Replace", true))
	if state, _ := r.State("third"); state != "waiting" {
		t.Errorf("the network is %s", state)
	}
}

// TestWhoMay: by the shipped policy every user may read, and an administrator has
// to authenticate for a change.
func TestWhoMay(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.OK(r.AddXML(rig.NetXML("default", "virbr0", "nat", rig.NatNet)))
	before := r.Everything()
	const object = string(rig.ManagerPath) + "/network/default"
	call := func(path, iface, method string, args ...string) (string, error) {
		return r.RunAs(65534, append([]string{"busctl", "--system", "call", rig.ManagerName, path, iface, method}, args...)...)
	}
	for method, args := range map[string][]string{
		"ListNetworks": nil, "GetNetwork": {"s", "default"}, "GetNetworkByBridge": {"s", "virbr0"},
		"Preview": {"ss", rig.NetXML("other", "virbr1", "nat", "10.1.0.1/24"), ""},
	} {
		if out, err := call(string(rig.ManagerPath), rig.ManagerName, method, args...); err != nil || !strings.Contains(out, "default") && !strings.Contains(out, "chain") {
			t.Errorf("%s: %v\n%s", method, err, out)
		}
	}
	for method, iface := range map[string]string{"GetRuleset": rig.NetworkName, "GetCounters": rig.NetworkName, "GetAll s " + rig.NetworkName: rig.PropertiesName,
		"Introspect": "org.freedesktop.DBus.Introspectable"} {
		words := strings.Fields(method)
		if out, err := call(object, iface, words[0], words[1:]...); err != nil {
			t.Errorf("%s: %v\n%s", method, err, out)
		}
	}
	if out, err := call(string(rig.ManagerPath), rig.ObjectsName, "GetManagedObjects"); err != nil || !strings.Contains(out, "default") {
		t.Errorf("GetManagedObjects: %v\n%s", err, out)
	}
	xml := rig.NetXML("other", "virbr1", "nat", "10.1.0.1/24")
	denied := []struct {
		path, iface, method string
		args                []string
	}{
		{"", "", "AddNetworkFromXML", []string{"sa{sv}", xml, "0"}},
		{"", "", "AddNetwork", []string{"sa{sv}a{sv}", "other", "1", "Bridge", "s", "virbr1", "0"}},
		{"", "", "RemoveNetwork", []string{"sa{sv}", "default", "0"}},
		{"", "", "SetBackend", []string{"sa{sv}", "nftables", "1", "Persistent", "b", "true"}},
		{"", "", "Reload", nil}, {"", "", "Reapply", nil},
		{"", "", "InstallZones", []string{"a{sv}", "0"}}, {"", "", "RemoveZones", []string{"a{sv}", "0"}},
		{"", "", "BindInterface", []string{"ss", "virbr0", ""}}, {"", "", "UnbindInterface", []string{"s", "virbr0"}},
		{object, rig.NetworkName, "Update", []string{"a{sv}a{sv}", "1", "TFTP", "b", "true", "0"}},
	}
	for _, d := range denied {
		if d.path == "" {
			d.path, d.iface = string(rig.ManagerPath), rig.ManagerName
		}
		out, err := call(d.path, d.iface, d.method, d.args...)
		if err == nil || !strings.Contains(out, "Access denied") { // nobody is there to ask, which busctl allows
			t.Errorf("%s as user 65534: %v\n%s", d.method, err, out)
		}
	}
	out, err := r.RunAs(65534, "gdbus", "call", "--system", "--dest", rig.ManagerName, "--object-path", string(rig.ManagerPath),
		"--method", rig.ManagerName+".RemoveNetwork", "default", "{}")
	if err == nil || !strings.Contains(out, rig.NeedsPeople) { // busctl does not show the name
		t.Errorf("the error's name is another: %v\n%s", err, out)
	}
	if diff := cmp.Diff(before, r.Everything()); diff != "" {
		t.Errorf("user 65534 changed something (-before +after):\n%s", diff)
	}
}

func TestSetBackend(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Configure("# mine\nown_table = false # so that I can flush")
	r.StartDaemon()
	f := r.Follow()
	property := func(name string) any {
		var v godbus.Variant
		r.OK(r.Call(rig.ManagerPath, rig.PropertiesName+".Get", rig.ManagerName, name), &v)
		return v.Value()
	}
	want := func(when, configured, source string) {
		t.Helper()
		if got := property("ConfiguredBackend"); got != configured {
			t.Errorf("%s: ConfiguredBackend is %v, want %s", when, got, configured)
		}
		if got := property("BackendSource").(string); !strings.Contains(got, source) {
			t.Errorf("%s: BackendSource is %q and does not say %q", when, got, source)
		}
		if got := property("Backend"); got != "nftables" {
			t.Errorf("%s: Backend is %v", when, got)
		}
	}
	const file = "/etc/virtfirewalld/virtfirewalld.conf"
	text := func() string { return r.Must("cat", file) }
	before := text()
	const found = "nftables: the kernel has it and nft is installed"
	want("at first", "auto", found)
	r.OK(r.Manager("SetBackend", "nftables", rig.Opts()))
	want("until restart", "nftables", "asked for by a client")
	if text() != before {
		t.Errorf("the file was written:\n%s", text())
	}
	r.OK(r.Manager("Reload"))
	want("after Reload", "auto", found)
	f.All()
	r.OK(r.Manager("SetBackend", "nftables", rig.Opts("Persistent", true)))
	want("persistent", "nftables", file)
	if told := f.All(); len(told) != 1 || !rig.HasAll(told[0], []string{"PropertiesChanged BackendSource=", "ConfiguredBackend=nftables"}) {
		t.Errorf("it was told as %q", told)
	}
	if got := text(); !strings.HasPrefix(got, before) || !strings.Contains(got, "\nfirewall_backend = \"nftables\"\n") {
		t.Errorf("the file is now:\n%s", got)
	}
	r.StopDaemon()
	r.StartDaemon()
	want("after a restart", "nftables", file)
	r.OK(r.Manager("SetBackend", "auto", rig.Opts("Persistent", true)))
	want("auto again", "auto", "")
	if got := property("AvailableBackends").([]string); !slices.Equal(got, []string{"nftables", "iptables"}) {
		t.Errorf("AvailableBackends is %q", got)
	}
	if got := property("Version").(string); got == "" || !strings.Contains(r.Must("virtfirewalld", "--version"), got) {
		t.Errorf("Version is %q", got)
	}
	r.Configure("firewall_backend = \"pf\"")
	r.WantError(r.Manager("Reload"), "InvalidArgument")
	want("after a Reload that failed", "auto", "")
}

// TestTwoClientsAtOnce change the same and different networks; each call is
// done whole or refused by name, and both see the same in the end.
func TestTwoClientsAtOnce(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	f := r.Follow()
	const rounds = 15
	var wait sync.WaitGroup
	var mu sync.Mutex
	added := 0
	for client := range 2 {
		conn, err := r.DialBus(t.Context())
		rig.Must(t, err)
		defer conn.Close()
		own := fmt.Sprintf("own%d", client)
		manager := conn.Object(rig.ManagerName, rig.ManagerPath)
		call := func(method string, args ...any) error {
			return manager.Call(rig.ManagerName+"."+method, 0, args...).Err
		}
		wait.Go(func() {
			for range rounds {
				if err := call("AddNetworkFromXML", rig.Lab(own, 10+client), rig.Opts()); err != nil {
					t.Errorf("adding %s: %v", own, err)
				}
				switch err := call("AddNetworkFromXML", rig.Lab("shared", 20), rig.Opts()); {
				case err == nil:
					mu.Lock()
					added++
					mu.Unlock()
					if err := call("RemoveNetwork", "shared", rig.Opts()); err != nil {
						t.Errorf("removing what was just added: %v", err)
					}
				case !strings.Contains(err.Error(), "exists"):
					t.Errorf("adding the shared network: %v", err)
				}
				if err := call("RemoveNetwork", own, rig.Opts()); err != nil {
					t.Errorf("removing %s: %v", own, err)
				}
			}
		})
	}
	wait.Wait()
	if table := r.Table(); table != "" {
		t.Errorf("with no network there is a table:\n%s", table)
	}
	// Signals alternate for each name: nothing is told twice or out of order.
	there := map[string]bool{}
	count := 0
	for _, told := range f.All() {
		words := strings.Fields(told)
		switch words[0] {
		case "NetworkAdded", "NetworkRemoved":
			if there[words[1]] == (words[0] == "NetworkAdded") {
				t.Errorf("out of order: %s", told)
			}
			there[words[1]] = words[0] == "NetworkAdded"
			count++
		}
	}
	if want := 2 * (2*rounds + added); count != want {
		t.Errorf("%d networks were told of, want %d", count, want)
	}
}

// TestClientThatVanishes disconnects in the middle of calls: each is done
// whole or not at all, and the service goes on.
func TestClientThatVanishes(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	const calls = 40
	for i := range calls {
		conn, err := r.DialBus(t.Context())
		rig.Must(t, err)
		conn.Object(rig.ManagerName, rig.ManagerPath).Go(rig.ManagerName+".AddNetworkFromXML", 0, nil, rig.Lab(vanishing(i), i), rig.Opts("Persistent", i%2 == 0))
		time.Sleep(time.Duration(i) * 100 * time.Microsecond) // so that each is caught elsewhere
		conn.Close()
	}
	var done int
	var halves []string
	r.Until("the last call is over", func() bool {
		done, halves = vanished(r, calls)
		return len(halves) == 0
	})
	var repairs uint32
	r.OK(r.Manager("Reapply"), &repairs)
	if repairs != 0 {
		t.Errorf("%d networks needed repair", repairs)
	}
	t.Logf("%d of %d calls were done", done, calls)
	r.OK(r.AddXML(rig.Lab("default", 99)))
}

func vanishing(i int) string { return fmt.Sprintf("n%d", i) }

// vanished counts the networks that there are, and says of which there is but
// a part.
func vanished(r *rig.Rig, calls int) (done int, halves []string) {
	r.T.Helper()
	var paths []godbus.ObjectPath
	r.OK(r.Manager("ListNetworks"), &paths)
	table := r.Table()
	for i := range calls {
		name := vanishing(i)
		known := slices.Contains(paths, rig.ManagerPath+"/network/"+godbus.ObjectPath(name))
		inKernel := rig.InTable(table, name)
		file := fmt.Sprintf("/etc/virtfirewalld/networks/%s.xml", name)
		if i%2 == 1 {
			file = fmt.Sprintf("/run/virtfirewalld/networks/%s.xml", name)
		}
		_, err := r.ReadFile(file)
		if inKernel != known || (err == nil) != known {
			halves = append(halves, fmt.Sprintf("%s known: %v, in the kernel: %v, file: %v", name, known, inKernel, err))
		}
		if known {
			done++
		}
	}
	return done, halves
}
