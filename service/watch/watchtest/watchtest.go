// Package watchtest makes small hosts for tests: network namespaces that are
// joined by a veth pair, with a router that sends real advertisements. Nothing
// in it touches the namespace that the tests were started in.
package watchtest

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Must ends the test on an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// NewNamespace moves the test's thread into a new network namespace with its
// loopback up. The thread is never unlocked, so that it ends with the test.
func NewNamespace(t testing.TB) netns.NsHandle {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces and has to run as root")
	}
	runtime.LockOSThread()
	ns, err := netns.New()
	Must(t, err)
	t.Cleanup(func() { ns.Close() })
	lo, err := netlink.LinkByName("lo")
	Must(t, err)
	Must(t, netlink.LinkSetUp(lo))
	return ns
}

// In runs f on the test's thread in another namespace and comes back.
func In(t testing.TB, ns netns.NsHandle, f func()) {
	t.Helper()
	here, err := netns.Get()
	Must(t, err)
	defer here.Close()
	Must(t, netns.Set(ns))
	defer func() { Must(t, netns.Set(here)) }()
	f()
}

// Pair makes a veth pair from this namespace to another, both ends up and with
// addresses as given, and gives this end's index.
func Pair(t testing.TB, name string, peer netns.NsHandle, peerName string, addrs, peerAddrs []string) int {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	v := &netlink.Veth{LinkAttrs: attrs, PeerName: peerName, PeerNamespace: netlink.NsFd(peer)}
	Must(t, netlink.LinkAdd(v))
	up(t, name, addrs)
	In(t, peer, func() { up(t, peerName, peerAddrs) })
	return v.Index
}

// up makes a link usable at once, without duplicate address detection.
func up(t testing.TB, name string, addrs []string) {
	t.Helper()
	SetSysctl(t, "net/ipv6/conf/"+name+"/accept_dad", "0")
	link, err := netlink.LinkByName(name)
	Must(t, err)
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		Must(t, err)
		Must(t, netlink.AddrAdd(link, addr))
	}
	Must(t, netlink.LinkSetUp(link))
}

// SetSysctl writes a sysctl of the thread's network namespace.
func SetSysctl(t testing.TB, path, value string) {
	t.Helper()
	Must(t, os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0o644))
}

// Sysctl reads a sysctl of the thread's network namespace.
func Sysctl(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc/sys", path))
	Must(t, err)
	return unix.ByteSliceToString(b[:max(0, len(b)-1)])
}

// Advertise sends router advertisements to all nodes from an interface of the
// router's namespace until ok, with the lifetime as a default router.
func Advertise(t testing.TB, router netns.NsHandle, iface string, lifetime time.Duration, ok func() bool) {
	t.Helper()
	AdvertisePrefix(t, router, iface, lifetime, "", ok)
}

// AdvertisePrefix is Advertise with a prefix that is on the link and for
// addresses, unless it is "".
func AdvertisePrefix(t testing.TB, router netns.NsHandle, iface string, lifetime time.Duration, prefix string, ok func() bool) {
	t.Helper()
	msg := advertisement(t, lifetime, prefix)
	for limit := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("router advertisements had no effect within 10 s")
		}
		In(t, router, func() { advertise(t, iface, msg) })
	}
}

// advertisement is the message (RFC 4861, 4.2 and 4.6.2).
func advertisement(t testing.TB, lifetime time.Duration, prefix string) []byte {
	t.Helper()
	const routerAdvertisement, prefixInformation, onLinkForAddresses = 134, 3, 0xc0
	msg := make([]byte, 16)
	msg[0], msg[4] = routerAdvertisement, 64
	binary.BigEndian.PutUint16(msg[6:], uint16(lifetime/time.Second))
	if prefix == "" {
		return msg
	}
	p, err := netip.ParsePrefix(prefix)
	Must(t, err)
	option := make([]byte, 16, 32)
	option[0], option[1], option[2], option[3] = prefixInformation, 4, byte(p.Bits()), onLinkForAddresses
	binary.BigEndian.PutUint32(option[4:], 86400) // valid for, in seconds
	binary.BigEndian.PutUint32(option[8:], 14400) // preferred for
	return append(msg, append(option, p.Addr().AsSlice()...)...)
}

// advertise sends one advertisement. Until the link-local address is usable
// there is nothing to send it from.
func advertise(t testing.TB, iface string, msg []byte) {
	t.Helper()
	link, err := netlink.LinkByName(iface)
	Must(t, err)
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	Must(t, err)
	defer unix.Close(fd)
	Must(t, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255))
	Must(t, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, link.Attrs().Index))
	all := &unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::1").As16(), ZoneId: uint32(link.Attrs().Index)}
	if err := unix.Sendto(fd, msg, 0, all); err != nil && err != unix.EADDRNOTAVAIL && err != unix.ENETUNREACH {
		t.Fatal("sending a router advertisement: ", err)
	}
}
