package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/cmd/virtfirewallctl/client"
)

type added struct{ client.Network }

func (n added) text(o *output) {
	o.linef("%s added on %s: %s", printable(n.Name), printable(n.Bridge), state(n.Network))
}

// state formats a network's state with its reason.
func state(n client.Network) string {
	if n.StateReason == "" {
		return printable(n.State)
	}
	return printable(n.State + " (" + n.StateReason + ")")
}

// notActive prints a line for each network that is not active, with the reason
// and what to do. Lines are not wrapped, so that commands in them can be pasted.
func notActive(o *output, networks []client.Network) {
	separate := true
	for _, n := range networks {
		if n.State == "active" {
			continue
		}
		if separate {
			o.linef("")
			separate = false
		}
		why := orElse(n.StateReason, "no reason is known")
		if n.StateCode != "" {
			why += " [" + n.StateCode + "]"
		}
		o.linef("%s", printable(n.Name+" is "+n.State+": "+why))
	}
}

type removed struct {
	Removed string `json:"removed"`
}

func (r removed) text(o *output) { o.linef("%s removed", printable(r.Removed)) }

type networkList []client.Network

func (l networkList) text(o *output) {
	if len(l) == 0 {
		o.linef("no networks")
		return
	}
	rows := [][]string{{"NAME", "BRIDGE", "MODE", "STATE", "ZONE", "ADDRESSES"}}
	for _, n := range l {
		rows = append(rows, []string{
			n.Name, n.Bridge, n.ForwardMode, n.State, orElse(n.BoundZone, "-"), listed(n.Addresses, "-"),
		})
	}
	o.table(rows, 0, 1, 4, 5)
	notActive(o, l)
}

type shown struct{ client.Network }

func (n shown) text(o *output) {
	bridge := n.Bridge + " (does not exist yet)"
	if n.BridgeIndex != 0 {
		bridge = fmt.Sprintf("%s (interface %d)", n.Bridge, n.BridgeIndex)
	}
	rows := [][]string{
		{"Name:", n.Name},
		{"UUID:", n.UUID},
		{"Bridge:", bridge},
		{"State:", n.State},
	}
	if n.StateReason != "" {
		rows = append(rows, []string{"Reason:", n.StateReason})
	}
	if n.StateCode != "" {
		rows = append(rows, []string{"Finding:", n.StateCode})
	}
	rows = append(rows, [][]string{
		{"Persistent:", yesNo(n.Persistent)},
		{"Backend:", n.Backend},
		{"Zone:", zone(n.Network)},
		{"Forward:", n.ForwardMode},
		{"Devices:", listed(n.ForwardDevices, "any")},
		{"Addresses:", listed(n.Addresses, "none")},
		{"Routes:", listed(n.Routes, "none")},
		{"NAT:", translation(n.Network)},
		{"IPv6 guests:", yesNo(n.IPv6Guests)},
		{"Services:", listed(services(n.Network), "none")},
	}...)
	for _, f := range n.PortForwards {
		rows = append(rows, []string{"Forwarded:", forward(f)})
	}
	o.fields(rows)
}

// zone formats the zone that the bridge is in, and the one that was asked for if
// that is another.
func zone(n client.Network) string {
	switch {
	case n.Zone == "" || n.Zone == n.BoundZone:
		return orElse(n.BoundZone, "none")
	case n.BoundZone == "":
		return "none (" + n.Zone + " asked for)"
	}
	return n.BoundZone + " (" + n.Zone + " asked for)"
}

func translation(n client.Network) string {
	if n.ForwardMode != "nat" {
		return "none"
	}
	families, to := "IPv4", orElse(n.NATAddressRange, "the outgoing interface's address")
	if n.NATIPv6 {
		families = "IPv4 and IPv6"
	}
	if n.NATIPv6Range != "" {
		to += " and " + n.NATIPv6Range
	}
	return fmt.Sprintf("%s, to %s, ports %s", families, to, orElse(n.NATPortRange, "1024-65535"))
}

func services(n client.Network) []string {
	var s []string
	for _, offered := range []struct {
		on   bool
		name string
	}{{n.DHCP, "DHCP"}, {n.DNS, "DNS"}, {n.TFTP, "TFTP"}} {
		if offered.on {
			s = append(s, offered.name)
		}
	}
	return s
}

func forward(f client.PortForward) string {
	ports := strconv.Itoa(int(f.HostPort))
	if f.HostPortEnd > f.HostPort {
		ports += "-" + strconv.Itoa(int(f.HostPortEnd))
	}
	to := f.GuestPort
	if to == 0 {
		to = f.HostPort
	}
	return fmt.Sprintf("%d: %s %s port %s to %s port %d",
		f.ID, f.Protocol, orElse(f.HostAddress, "any address"), ports, f.GuestAddress, to)
}

type rulesets []client.Ruleset

func (l rulesets) text(o *output) {
	for i, r := range l {
		if len(l) > 1 {
			if i > 0 {
				o.linef("")
			}
			o.linef("# network %s", printable(r.Name))
		}
		o.write(printableRules(r.Ruleset))
	}
}

type preview struct {
	Ruleset string `json:"ruleset"`
}

func (p preview) text(o *output) { o.write(printableRules(p.Ruleset)) }

// printableRules returns rules in printable lines, with their tabs and newlines
// kept and a newline at the end.
func printableRules(rules string) string {
	lines := strings.Split(strings.TrimRight(rules, "\n"), "\n")
	for i, line := range lines {
		indent := len(line) - len(strings.TrimLeft(line, "\t"))
		lines[i] = line[:indent] + printable(line[indent:])
	}
	return strings.Join(lines, "\n") + "\n"
}

type counters []client.Counters

func (l counters) text(o *output) {
	if len(l) == 0 {
		o.linef("no networks")
		return
	}
	rows := [][]string{{"NAME", "FROM GUESTS", "BYTES", "TO GUESTS", "BYTES", "REJ FROM", "REJ TO"}}
	for _, c := range l {
		row := []string{c.Name}
		for _, n := range []uint64{
			c.FromGuestPackets, c.FromGuestBytes, c.ToGuestPackets, c.ToGuestBytes,
			c.RejectedFromGuestPackets, c.RejectedToGuestPackets,
		} {
			row = append(row, strconv.FormatUint(n, 10))
		}
		rows = append(rows, row)
	}
	o.table(rows, 0)
}
