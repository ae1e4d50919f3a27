package neighbour

import (
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/libvirt"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// rule is a rule of a kind that libvirt makes, from either of its backends. Rules
// of other kinds have no rule value, so they cannot be taken for libvirt's.
type rule struct {
	in, out  string // interface names
	src, dst netip.Prefix
	notDst   bool // any destination but dst
	proto    byte
	port     uint16 // destination
	replies  bool   // of established and related connections only
	action   action
}

type action int

const (
	actionNone action = iota
	actionAccept
	actionReject
	actionReturn
	actionTranslate
	actionChecksum
)

// role is what a chain of libvirt's does, whatever its name.
type role int

const (
	roleNone   role = iota
	roleInput       // to the host
	roleOutput      // from the host
	roleCross       // between guests of one bridge
	roleTo          // forwarded to guests
	roleFrom        // forwarded from guests
	roleNAT
	roleMangle
)

// exempt reports whether libvirt does not translate traffic to p.
func exempt(p netip.Prefix) bool {
	switch p.String() {
	case "224.0.0.0/24", "255.255.255.255/32", "ff02::/16":
		return true
	}
	return false
}

// madeFor returns the bridge and subnet that libvirt made the rule for. ok is false
// for a rule that libvirt would not make in such a chain: hooks and administrators
// put theirs into libvirt's chains too. Translation names no bridge.
func (r rule) madeFor(in role) (bridge string, subnet netip.Prefix, ok bool) {
	switch in {
	case roleInput:
		return r.in, subnet, r == rule{in: r.in, proto: r.proto, port: r.port, action: actionAccept} && served(r, 67, 547)
	case roleOutput:
		return r.out, subnet, r == rule{out: r.out, proto: r.proto, port: r.port, action: actionAccept} && served(r, 68, 546)
	case roleCross:
		return r.in, subnet, r == rule{in: r.in, out: r.in, action: actionAccept}
	case roleTo:
		accept := r == rule{in: r.in, out: r.out, dst: r.dst, replies: r.replies, action: actionAccept} && r.dst.IsValid()
		return r.out, r.dst, accept || r == rule{out: r.out, action: actionReject}
	case roleFrom:
		accept := r == rule{in: r.in, out: r.out, src: r.src, action: actionAccept} && r.src.IsValid()
		return r.in, r.src, accept || r == rule{in: r.in, action: actionReject}
	case roleNAT:
		leave := r == rule{out: r.out, src: r.src, dst: r.dst, action: actionReturn} && exempt(r.dst)
		translate := r == rule{out: r.out, src: r.src, dst: r.dst, notDst: true, proto: r.proto, action: actionTranslate} && r.dst.IsValid()
		return "", r.src, r.src.IsValid() && (leave || translate)
	case roleMangle:
		return r.out, subnet, r == rule{out: r.out, proto: unix.IPPROTO_UDP, port: 68, action: actionChecksum}
	}
	return "", subnet, false
}

// served reports whether libvirt opens the rule's port: DNS, DHCP in both
// families, TFTP.
func served(r rule, dhcp, dhcp6 uint16) bool {
	switch r.port {
	case 53, dhcp:
		return r.proto == unix.IPPROTO_UDP || r.proto == unix.IPPROTO_TCP
	case 69, dhcp6:
		return r.proto == unix.IPPROTO_UDP
	}
	return false
}

// targets are the networks whose leftovers are searched.
type targets struct {
	bridges map[string]target
	subnets map[netip.Prefix]string // the network's name
}

type target struct {
	network string
	subnets map[netip.Prefix]bool
}

func targetsOf(nets []network.Network) targets {
	t := targets{make(map[string]target, len(nets)), make(map[netip.Prefix]string, len(nets))}
	for _, n := range nets {
		t.add(n)
	}
	return t
}

func (t targets) add(n network.Network) {
	own := make(map[netip.Prefix]bool)
	for _, p := range n.Subnets() {
		own[p] = true
		t.subnets[p] = n.Name
	}
	t.bridges[n.Bridge] = target{n.Name, own}
}

// exclude drops the translation of subnets that libvirt still has, on whatever
// bridge: rules that translate name none.
func (t targets) exclude(nets []libvirt.Network) {
	for _, n := range nets {
		for _, p := range n.Definition.Subnets() {
			delete(t.subnets, p)
		}
	}
}

// owner returns the network that libvirt made the rule for.
func (t targets) owner(r rule, in role) (network string, ok bool) {
	bridge, subnet, ok := r.madeFor(in)
	if !ok {
		return "", false
	}
	if in == roleNAT {
		network, ok = t.subnets[subnet]
		return network, ok
	}
	n, ok := t.bridges[bridge]
	return n.network, ok && (!subnet.IsValid() || n.subnets[subnet])
}

// concerns reports whether any of the words is a bridge or a subnet of ours.
func (t targets) concerns(words ...string) bool {
	for _, word := range words {
		if _, ok := t.bridges[word]; ok {
			return true
		}
		if !strings.Contains(word, "/") {
			continue
		}
		if p, err := netip.ParsePrefix(word); err == nil && t.subnets[p] != "" {
			return true
		}
	}
	return false
}
