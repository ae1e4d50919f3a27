package host

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// icmpError takes the ICMP error that a socket received, if any, out of its
// error queue: what it says, and who sent it.
func icmpError(fd int) (how string, by netip.Addr, ok bool) {
	control := make([]byte, 512)
	_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 512), control, unix.MSG_ERRQUEUE)
	if err != nil {
		return "", netip.Addr{}, false
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return "", netip.Addr{}, false
	}
	for _, m := range messages {
		v4 := m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR
		v6 := m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if v4 || v6 {
			return readExtendedError(m.Data)
		}
	}
	return "", netip.Addr{}, false
}

// readExtendedError reads a struct sock_extended_err (linux/errqueue.h) and the
// socket address of the sender behind it.
func readExtendedError(data []byte) (how string, by netip.Addr, ok bool) {
	const size = 16
	if len(data) < size {
		return "", netip.Addr{}, false
	}
	origin, kind, code := data[4], data[5], data[6]
	if origin != unix.SO_EE_ORIGIN_ICMP && origin != unix.SO_EE_ORIGIN_ICMP6 {
		return "", netip.Addr{}, false
	}
	sender := data[size:]
	if len(sender) >= 8 && binary.NativeEndian.Uint16(sender) == unix.AF_INET {
		by, _ = netip.AddrFromSlice(sender[4:8])
	} else if len(sender) >= 24 && binary.NativeEndian.Uint16(sender) == unix.AF_INET6 {
		by, _ = netip.AddrFromSlice(sender[8:24])
	}
	return icmpText(origin == unix.SO_EE_ORIGIN_ICMP6, kind, code), by, true
}

// icmpText names an ICMP error as nft's reject statement does.
func icmpText(ipv6 bool, kind, code byte) string {
	names := map[byte]string{
		0: "net unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable",
		4: "fragmentation needed", 9: "net prohibited", 10: "host prohibited", 13: "admin prohibited",
	}
	family, unreachable := "ICMP", byte(3)
	if ipv6 {
		names = map[byte]string{
			0: "no route", 1: "admin prohibited", 3: "addr unreachable", 4: "port unreachable",
			5: "policy fail", 6: "reject route",
		}
		family, unreachable = "ICMPv6", 1
	}
	if name, ok := names[code]; ok && kind == unreachable {
		return family + " " + name
	}
	return fmt.Sprintf("%s type %d code %d", family, kind, code)
}
