package host

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/watch"
	"github.com/virtfirewalld/virtfirewalld/service/watch/watchtest"
)

// village holds a host with a bridge and a guest on it that can advertise itself.
type village struct {
	t      *testing.T
	guest  netns.NsHandle
	bridge int
	links  *watch.Monitor
	record string
	log    strings.Builder
}

func newVillage(t *testing.T) *village {
	t.Helper()
	v := &village{t: t, guest: watchtest.NewNamespace(t), record: filepath.Join(t.TempDir(), "advertisements")}
	watchtest.NewNamespace(t)
	watchtest.SetSysctl(t, forward6, "0")
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "virbr0"}}
	watchtest.Must(t, netlink.LinkAdd(br))
	v.bridge = br.Index
	watchtest.SetSysctl(t, "net/ipv6/conf/virbr0/accept_dad", "0")
	watchtest.SetSysctl(t, "net/ipv6/conf/virbr0/accept_ra", "1")
	watchtest.Must(t, netlink.LinkSetUp(br))
	port := watchtest.Pair(t, "vnet0", v.guest, "eth0", nil, []string{"fe80::bad/64"})
	link, err := netlink.LinkByIndex(port)
	watchtest.Must(t, err)
	watchtest.Must(t, netlink.LinkSetMaster(link, br))
	m, err := watch.Start(t.Context(), watch.Config{})
	watchtest.Must(t, err)
	t.Cleanup(func() { m.Close() })
	v.links = m
	return v
}

func (v *village) open() *Advertisements {
	v.t.Helper()
	a, err := OpenAdvertisements(AdvertisementsConfig{Links: v.links, Proc: "/proc", Record: v.record,
		Log: slog.New(slog.NewTextHandler(&v.log, nil))})
	watchtest.Must(v.t, err)
	return a
}

func (v *village) silence(a *Advertisements) (again bool) {
	v.t.Helper()
	again, err := a.Silence(v.bridge)
	watchtest.Must(v.t, err)
	return again
}

// learned returns the bridge's routes and addresses that no administrator made.
func (v *village) learned() (routes, addresses int) {
	v.t.Helper()
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: v.bridge}}
	all, err := netlink.RouteList(link, unix.AF_INET6)
	watchtest.Must(v.t, err)
	for _, r := range all {
		if ones, _ := r.Dst.Mask.Size(); ones == 0 || r.Dst.IP.String() == "2001:db8:bad::" {
			routes++
		}
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
	watchtest.Must(v.t, err)
	for _, a := range addrs {
		if a.Flags&unix.IFA_F_PERMANENT == 0 {
			addresses++
		}
	}
	return routes, addresses
}

func (v *village) wantLearned(routes, addresses int) {
	v.t.Helper()
	if r, a := v.learned(); r != routes || a != addresses {
		v.t.Errorf("%d routes and %d addresses are learned, want %d and %d", r, a, routes, addresses)
	}
}

func (v *village) wantSysctl(accept, autoconf string) {
	v.t.Helper()
	a, b := watchtest.Sysctl(v.t, "net/ipv6/conf/virbr0/accept_ra"), watchtest.Sysctl(v.t, "net/ipv6/conf/virbr0/autoconf")
	if a != accept || b != autoconf {
		v.t.Errorf("accept_ra is %s and autoconf %s, want %s and %s", a, b, accept, autoconf)
	}
}

// teach makes the guest advertise itself and a prefix until the host accepts it.
func (v *village) teach() {
	v.t.Helper()
	watchtest.AdvertisePrefix(v.t, v.guest, "eth0", 30*time.Minute, "2001:db8:bad::/64", func() bool {
		routes, addresses := v.learned()
		return routes == 2 && addresses == 1
	})
}

// shout makes the guest advertise a number of times.
func (v *village) shout() {
	v.t.Helper()
	n := 0
	watchtest.AdvertisePrefix(v.t, v.guest, "eth0", 30*time.Minute, "2001:db8:bad::/64", func() bool { n++; return n > 20 })
}

func TestGuestsAdvertisementsAreIgnored(t *testing.T) {
	v := newVillage(t)
	v.teach()
	// What an administrator made stays.
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: v.bridge}}
	addr, err := netlink.ParseAddr("2001:db8:122::1/64")
	watchtest.Must(t, err)
	watchtest.Must(t, netlink.AddrAdd(link, addr))
	static := &netlink.Route{LinkIndex: v.bridge, Gw: []byte(addr.IP[:15:15]), Family: unix.AF_INET6, Priority: 5}
	static.Gw = append(static.Gw, 9)
	watchtest.Must(t, netlink.RouteAdd(static))

	a := v.open()
	if v.silence(a) {
		t.Error("the first time counts as another time")
	}
	v.wantSysctl("0", "0")
	v.wantLearned(1, 0) // the administrator's default route
	v.shout()
	v.wantLearned(1, 0)
	if v.silence(a) {
		t.Error("nobody has changed anything")
	}

	watchtest.SetSysctl(t, "net/ipv6/conf/virbr0/accept_ra", "2")
	if !v.silence(a) {
		t.Error("that somebody switched it on is not noticed")
	}
	v.wantSysctl("0", "0")
	watchtest.Must(t, a.Restore(v.bridge))
	v.wantSysctl("1", "1")
	if left, err := os.ReadDir(v.record); err != nil || len(left) > 0 || len(a.Silenced()) > 0 {
		t.Error("noted still: ", left, err, a.Silenced())
	}
}

// An address of the host's own may rest on a prefix that was advertised first.
func TestOwnAddressKeepsItsPrefix(t *testing.T) {
	v := newVillage(t)
	v.teach()
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: v.bridge}}
	addr, err := netlink.ParseAddr("2001:db8:bad::1/64")
	watchtest.Must(t, err)
	watchtest.Must(t, netlink.AddrAdd(link, addr))
	v.silence(v.open())
	v.wantLearned(1, 0)
}

// What was set before survives a killed run, a rename, and a change that another
// program made meanwhile.
func TestWhatWasSetIsKnown(t *testing.T) {
	v := newVillage(t)
	watchtest.SetSysctl(t, "net/ipv6/conf/virbr0/accept_ra", "2")
	v.silence(v.open())
	v.silence(v.open()) // another run finds zeros
	a := v.open()
	if got := a.Silenced(); !slices.Equal(got, []int{v.bridge}) {
		t.Fatal("silenced are ", got)
	}
	watchtest.Must(t, netlink.LinkSetName(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: v.bridge}}, "other"))
	watchtest.Must(t, v.links.Sync(t.Context()))
	watchtest.SetSysctl(t, "net/ipv6/conf/other/autoconf", "0")
	watchtest.Must(t, a.Restore(v.bridge))
	if got := watchtest.Sysctl(t, "net/ipv6/conf/other/accept_ra"); got != "2" {
		t.Error("accept_ra is ", got)
	}
}

// A deleted bridge leaves no record for another of its name.
func TestNewBridgeIsNotTheOldOne(t *testing.T) {
	v := newVillage(t)
	watchtest.SetSysctl(t, "net/ipv6/conf/virbr0/accept_ra", "2")
	v.silence(v.open())
	watchtest.Must(t, netlink.LinkDel(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: v.bridge}}))
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "virbr0"}}
	watchtest.Must(t, netlink.LinkAdd(br))
	watchtest.Must(t, v.links.Sync(t.Context()))
	a := v.open()
	if got := a.Silenced(); len(got) > 0 {
		t.Error("silenced are ", got)
	}
	v.bridge = br.Index
	v.silence(a)
	watchtest.Must(t, a.Restore(v.bridge))
	v.wantSysctl("1", "1")
}

func TestNoteThatCannotBeRead(t *testing.T) {
	for _, data := range []string{"", "{", `{"accept_ra":"1;reboot","autoconf":"1"}`, "null"} {
		v := newVillage(t)
		watchtest.Must(t, os.MkdirAll(v.record, 0o700))
		file := filepath.Join(v.record, strconv.Itoa(v.bridge))
		watchtest.Must(t, os.WriteFile(file, []byte(data), 0o600))
		a := v.open()
		if _, err := os.Stat(file + unreadable); err != nil || !strings.Contains(v.log.String(), file) {
			t.Errorf("%q: %v, logged %s", data, err, v.log.String())
		}
		v.silence(a)
		v.wantSysctl("0", "0")
	}
}

func TestLinkWithoutIPv6(t *testing.T) {
	v := newVillage(t)
	a, err := OpenAdvertisements(AdvertisementsConfig{Links: v.links, Proc: t.TempDir(), Record: v.record, Log: slog.Default()})
	watchtest.Must(t, err)
	for _, index := range []int{v.bridge, 4711} {
		if again, err := a.Silence(index); again || err != nil {
			t.Error(again, err)
		}
		watchtest.Must(t, a.Restore(index))
	}
}

func BenchmarkSilence(b *testing.B) {
	watchtest.NewNamespace(b)
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "virbr0"}}
	watchtest.Must(b, netlink.LinkAdd(br))
	m, err := watch.Start(b.Context(), watch.Config{})
	watchtest.Must(b, err)
	defer m.Close()
	a, err := OpenAdvertisements(AdvertisementsConfig{Links: m, Proc: "/proc", Record: b.TempDir(), Log: slog.Default()})
	watchtest.Must(b, err)
	for b.Loop() {
		_, err := a.Silence(br.Index)
		watchtest.Must(b, err)
		watchtest.Must(b, a.Restore(br.Index))
	}
}
