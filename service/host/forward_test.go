package host

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/watch"
	"github.com/virtfirewalld/virtfirewalld/service/watch/watchtest"
)

// monitored makes a host with an uplink to a router, and watches it.
func monitored(t *testing.T) (f *Forwarding, m *watch.Monitor, advertise func(lifetime time.Duration, routes int)) {
	t.Helper()
	router := watchtest.NewNamespace(t)
	watchtest.NewNamespace(t)
	watchtest.Pair(t, "eth0", router, "r0", nil, nil)
	m, err := watch.Start(t.Context(), watch.Config{})
	watchtest.Must(t, err)
	t.Cleanup(func() { m.Close() })
	return NewForwarding(m, "/proc"), m, func(lifetime time.Duration, routes int) {
		t.Helper()
		watchtest.Advertise(t, router, "r0", lifetime, func() bool { return len(m.DefaultRoutes()) == routes })
	}
}

func enable(t *testing.T, f *Forwarding, v4, v6 bool) (problem string) {
	t.Helper()
	_, problem, err := f.Enable(Demand{V4: v4, V6: v6})
	watchtest.Must(t, err)
	return problem
}

// wantForwarding compares both sysctls.
func wantForwarding(t *testing.T, v4, v6 string) {
	t.Helper()
	if got4, got6 := watchtest.Sysctl(t, forward4), watchtest.Sysctl(t, forward6); got4 != v4 || got6 != v6 {
		t.Errorf("forwarding is %s and %s, want %s and %s", got4, got6, v4, v6)
	}
}

// defaultRoutes asks the kernel itself.
func defaultRoutes(t *testing.T) (n int) {
	t.Helper()
	routes, err := netlink.RouteList(nil, unix.AF_INET6)
	watchtest.Must(t, err)
	for _, r := range routes {
		if ones, _ := r.Dst.Mask.Size(); ones == 0 {
			n++
		}
	}
	return n
}

func TestForwardingIsSwitchedOnAsNeeded(t *testing.T) {
	f, _, _ := monitored(t)
	watchtest.SetSysctl(t, forward4, "0")
	watchtest.SetSysctl(t, forward6, "0")
	if problem := enable(t, f, false, false); problem != "" {
		t.Error("problem:", problem)
	}
	wantForwarding(t, "0", "0")
	enable(t, f, true, false)
	wantForwarding(t, "1", "0")
	watchtest.SetSysctl(t, forward4, "0")
	enable(t, f, false, true)
	wantForwarding(t, "0", "1")
	enable(t, f, true, true)
	enable(t, f, false, false)
	wantForwarding(t, "1", "1")
}

func TestAdvertisedRouteIsKept(t *testing.T) {
	f, _, advertise := monitored(t)
	watchtest.SetSysctl(t, forward4, "0")
	watchtest.SetSysctl(t, forward6, "0")
	watchtest.SetSysctl(t, "net/ipv6/conf/eth0/accept_ra", "1")
	advertise(30*time.Minute, 1)

	problem := enable(t, f, true, true)
	for _, part := range []string{"eth0", "set net.ipv6.conf.eth0.accept_ra to 2, then reapply"} {
		if !strings.Contains(problem, part) {
			t.Errorf("problem %q does not contain %q", problem, part)
		}
	}
	wantForwarding(t, "1", "0")
	if n := defaultRoutes(t); n != 1 {
		t.Errorf("%d default routes, want the router's", n)
	}

	// What the problem says is what helps.
	watchtest.SetSysctl(t, "net/ipv6/conf/eth0/accept_ra", "2")
	if problem := enable(t, f, true, true); problem != "" {
		t.Error("problem in spite of accept_ra 2:", problem)
	}
	wantForwarding(t, "1", "1")
	if n := defaultRoutes(t); n != 1 {
		t.Errorf("%d default routes after IPv6 forwarding came on, want the router's", n)
	}

	// Nothing is left to lose where forwarding is on already.
	watchtest.SetSysctl(t, "net/ipv6/conf/eth0/accept_ra", "1")
	if problem := enable(t, f, true, true); problem != "" {
		t.Error("problem although forwarding is on:", problem)
	}
}

// The kernel drops the route whatever the interface's own forwarding says.
func TestInterfaceThatForwardsLosesItsRouteToo(t *testing.T) {
	f, m, advertise := monitored(t)
	watchtest.SetSysctl(t, forward6, "0")
	watchtest.SetSysctl(t, "net/ipv6/conf/eth0/accept_ra", "2")
	watchtest.SetSysctl(t, "net/ipv6/conf/eth0/forwarding", "1")
	advertise(30*time.Minute, 1)
	watchtest.SetSysctl(t, "net/ipv6/conf/eth0/accept_ra", "1")
	if problem := enable(t, f, false, true); !strings.Contains(problem, "eth0") {
		t.Errorf("problem is %q", problem)
	}
	watchtest.SetSysctl(t, forward6, "1")
	for limit := time.Now().Add(3 * time.Second); defaultRoutes(t) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the kernel keeps the route, so there was no need to refuse: ", m.DefaultRoutes())
		}
	}
}

// NetworkManager and systemd-networkd read advertisements by themselves.
func TestRouteOfProgramThatReadsAdvertisements(t *testing.T) {
	f, m, _ := monitored(t)
	watchtest.SetSysctl(t, forward6, "0")
	watchtest.SetSysctl(t, "net/ipv6/conf/eth0/accept_ra", "0")
	link, err := netlink.LinkByName("eth0")
	watchtest.Must(t, err)
	gateway := netip.MustParseAddr("fe80::1").AsSlice()
	watchtest.Must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway, Protocol: unix.RTPROT_RA, Family: unix.AF_INET6}))
	for limit := time.Now().Add(3 * time.Second); len(m.DefaultRoutes()) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the monitor does not see the route")
		}
	}
	if !m.DefaultRoutes()[0].FromRA {
		t.Fatal("the route does not look like one from an advertisement: ", m.DefaultRoutes())
	}
	if problem := enable(t, f, false, true); problem != "" {
		t.Error("problem:", problem)
	}
	wantForwarding(t, watchtest.Sysctl(t, forward4), "1")
	if n := defaultRoutes(t); n != 1 {
		t.Errorf("%d default routes after IPv6 forwarding came on, want the program's", n)
	}
}

// Routes as a monitor returns them, for the texts about them.
type fixedRoutes map[int]string

func (r fixedRoutes) LinkByIndex(index int) (watch.Link, bool) {
	name, ok := r[index]
	return watch.Link{Index: index, Name: name}, ok
}

func (r fixedRoutes) DefaultRoutes() []watch.Route {
	var routes []watch.Route
	for index := 1; index <= 9; index++ {
		routes = append(routes, watch.Route{Index: index, FromRA: true}, watch.Route{IPv6: true, Index: index},
			watch.Route{IPv6: true, Index: index, FromRA: true})
	}
	return routes
}

// fakeProc is a /proc/sys in a folder, with accept_ra of interfaces.
func fakeProc(t *testing.T, acceptRA map[string]string) string {
	t.Helper()
	proc := t.TempDir()
	files := map[string]string{forward4: "0\n", forward6: "0\n"}
	for name, value := range acceptRA {
		files["net/ipv6/conf/"+name+"/accept_ra"] = value + "\n"
	}
	for key, value := range files {
		path := filepath.Join(proc, "sys", key)
		watchtest.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		watchtest.Must(t, os.WriteFile(path, []byte(value), 0o644))
	}
	return proc
}

func TestProblemNamesWhatToSet(t *testing.T) {
	const begin = "IPv6 forwarding is off, and switching it on would cost the host the default route that "
	for _, c := range []struct {
		name     string
		links    fixedRoutes
		acceptRA map[string]string
		want     string
	}{
		{"none", nil, nil, ""},
		{"not learned", fixedRoutes{1: "eth0"}, map[string]string{"eth0": "2"}, ""},
		{"gone meanwhile", fixedRoutes{1: "eth0"}, nil, ""},
		{"flags cannot be read", fixedRoutes{1: "eth0"}, map[string]string{"eth0": "0"},
			begin + "eth0 learned from router advertisements: set net.ipv6.conf.eth0.accept_ra to 2, then reapply"},
		{"two", fixedRoutes{1: "wlan0", 2: "eth0", 3: "eth1"}, map[string]string{"wlan0": "1", "eth0": "1", "eth1": "2"},
			begin + "eth0 and wlan0 learned from router advertisements: set net.ipv6.conf.eth0.accept_ra and net.ipv6.conf.wlan0.accept_ra to 2, then reapply"},
		{"name with a dot", fixedRoutes{1: "eth0.7"}, map[string]string{"eth0.7": "1"},
			begin + "eth0.7 learned from router advertisements: set net/ipv6/conf/eth0.7/accept_ra to 2, then reapply"},
		{"names that are no folder's", fixedRoutes{1: "all", 2: "default", 3: "..", 4: "a/b", 5: ""}, map[string]string{"all": "1", "a/b": "1"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := enable(t, NewForwarding(c.links, fakeProc(t, c.acceptRA)), true, true); got != c.want {
				t.Errorf("problem is\n%q, want\n%q", got, c.want)
			}
		})
	}
}

func TestValuesOtherThanZeroStay(t *testing.T) {
	proc := fakeProc(t, nil)
	for _, key := range []string{forward4, forward6} {
		watchtest.Must(t, os.WriteFile(filepath.Join(proc, "sys", key), []byte("2\n"), 0o644))
	}
	f := NewForwarding(fixedRoutes{}, proc)
	enable(t, f, true, true)
	for _, key := range []string{forward4, forward6} {
		if got, err := f.read(key); got != "2" || err != nil {
			t.Errorf("%s is %q (%v), want 2 as before", key, got, err)
		}
	}
}

func TestKernelWithoutIPv6(t *testing.T) {
	proc := fakeProc(t, nil)
	watchtest.Must(t, os.RemoveAll(filepath.Join(proc, "sys/net/ipv6")))
	f := NewForwarding(fixedRoutes{}, proc)
	if problem := enable(t, f, true, true); !strings.Contains(problem, "ipv6.disable=1") {
		t.Errorf("problem is %q", problem)
	}
	if got, _ := f.read(forward4); got != "1" {
		t.Errorf("IPv4 forwarding is %q, want it on in spite of the problem", got)
	}
}

func TestForwardingThatCannotBeSwitchedOn(t *testing.T) {
	proc := fakeProc(t, nil)
	watchtest.Must(t, os.Remove(filepath.Join(proc, "sys", forward4)))
	_, _, err := NewForwarding(fixedRoutes{}, proc).Enable(Demand{V4: true, V6: true})
	if err == nil || !strings.Contains(err.Error(), "net.ipv4.ip_forward") {
		t.Errorf("error is %v, want one that names the sysctl", err)
	}
}

// Every setting that matters is restored, and no other: the bridge's own in both
// families, for IPv4 that of the uplinks.
func TestSwitchesThatCount(t *testing.T) {
	router := watchtest.NewNamespace(t)
	watchtest.NewNamespace(t)
	watchtest.Pair(t, "eth0", router, "r0", []string{"203.0.113.2/24"}, nil)
	watchtest.Pair(t, "eth1", router, "r1", []string{"198.51.100.2/24"}, nil)
	watchtest.Pair(t, "virbr0", router, "v0", []string{"192.168.122.1/24"}, nil)
	watchtest.Must(t, netlink.RouteAdd(&netlink.Route{Gw: netip.MustParseAddr("203.0.113.1").AsSlice()}))
	watchtest.SetSysctl(t, forward4, "1")
	watchtest.SetSysctl(t, forward6, "1")
	m, err := watch.Start(t.Context(), watch.Config{})
	watchtest.Must(t, err)
	t.Cleanup(func() { m.Close() })
	f := NewForwarding(m, "/proc")
	for _, c := range []struct {
		key  string
		d    Demand
		back bool
	}{
		{"net/ipv4/conf/virbr0/forwarding", Demand{V4: true, Bridge: "virbr0"}, true},
		{"net/ipv4/conf/virbr0/forwarding", Demand{V6: true, Bridge: "virbr0"}, false},
		{"net/ipv6/conf/virbr0/forwarding", Demand{V6: true, Bridge: "virbr0"}, true},
		{"net/ipv6/conf/virbr0/forwarding", Demand{V4: true, Bridge: "virbr0"}, false},
		{"net/ipv4/conf/eth0/forwarding", Demand{V4: true, Bridge: "virbr0"}, true},
		{"net/ipv4/conf/eth0/forwarding", Demand{V4: true, Bridge: "virbr0", Devices: []string{"eth1", "absent"}}, false},
		{"net/ipv4/conf/eth0/forwarding", Demand{V4: true, Bridge: "virbr0", Guests: func(int) bool { return true }}, false},
		{"net/ipv4/conf/eth1/forwarding", Demand{V4: true, Bridge: "virbr0", Devices: []string{"eth1", "absent"}}, true},
		{"net/ipv4/conf/eth1/forwarding", Demand{V4: true, Bridge: "virbr0"}, false},
		{"net/ipv6/conf/eth0/forwarding", Demand{V6: true, Bridge: "virbr0"}, false},
		{"net/ipv4/conf/virbr0/forwarding", Demand{Bridge: "virbr0"}, false},
	} {
		watchtest.SetSysctl(t, c.key, "0")
		off, err := f.Off(c.d)
		watchtest.Must(t, err)
		on, problem, err := f.Enable(c.d)
		watchtest.Must(t, err)
		want, value := []string(nil), "0"
		if c.back {
			want, value = []string{c.key}, "1"
		}
		if got := watchtest.Sysctl(t, c.key); got != value || problem != "" || !slices.Equal(off, want) || !slices.Equal(on, want) {
			t.Errorf("%s with %+v: it is %s, off %v, switched on %v, problem %q", c.key, c.d, got, off, on, problem)
		}
		watchtest.SetSysctl(t, c.key, "1")
	}
}

// A bridge's own setting would cost the host its advertised route as well.
func TestBridgesSwitchKeepsTheAdvertisedRoute(t *testing.T) {
	f, _, advertise := monitored(t)
	watchtest.Must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "virbr0"}}))
	watchtest.SetSysctl(t, forward6, "1")
	for _, key := range []string{"net/ipv6/conf/eth0/forwarding", "net/ipv6/conf/virbr0/forwarding"} {
		watchtest.SetSysctl(t, key, "0")
	}
	watchtest.SetSysctl(t, "net/ipv6/conf/eth0/accept_ra", "1")
	advertise(30*time.Minute, 1)
	on, problem, err := f.Enable(Demand{V6: true, Bridge: "virbr0"})
	watchtest.Must(t, err)
	if len(on) > 0 || !strings.Contains(problem, "eth0") || defaultRoutes(t) != 1 {
		t.Errorf("switched on %v, problem %q, %d default routes", on, problem, defaultRoutes(t))
	}
	watchtest.SetSysctl(t, "net/ipv6/conf/virbr0/forwarding", "1")
	for limit := time.Now().Add(3 * time.Second); defaultRoutes(t) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the kernel keeps the route, so there was no need to refuse")
		}
	}
}

// A route from a guest's router advertisement is no obstacle.
func TestGuestsRouteNeedNotBeKept(t *testing.T) {
	f, m, advertise := monitored(t)
	watchtest.SetSysctl(t, forward6, "0")
	watchtest.SetSysctl(t, "net/ipv6/conf/eth0/accept_ra", "1")
	advertise(30*time.Minute, 1)
	link, _ := m.LinkByIndex(m.DefaultRoutes()[0].Index)
	on, problem, err := f.Enable(Demand{V6: true, Guests: func(index int) bool { return index == link.Index }})
	watchtest.Must(t, err)
	if problem != "" || !slices.Equal(on, []string{forward6}) {
		t.Errorf("switched on %v, problem %q", on, problem)
	}
}

func BenchmarkForwardWithNothingToDo(b *testing.B) {
	watchtest.NewNamespace(b)
	watchtest.SetSysctl(b, forward4, "1")
	watchtest.SetSysctl(b, forward6, "1")
	f := NewForwarding(fixedRoutes{}, "/proc")
	for b.Loop() {
		if _, _, err := f.Enable(Demand{V4: true, V6: true, Bridge: "lo"}); err != nil {
			b.Fatal(err)
		}
	}
}
