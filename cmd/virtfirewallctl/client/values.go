package client

import (
	"errors"
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"
)

// Network is one network as the service shows it.
type Network struct {
	Name            string   `json:"name"`
	UUID            string   `json:"uuid"`
	Bridge          string   `json:"bridge"`
	BridgeIndex     int32    `json:"bridge_index"`
	Persistent      bool     `json:"persistent"`
	Backend         string   `json:"backend"`
	State           string   `json:"state"`
	StateReason     string   `json:"state_reason"`
	StateCode       string   `json:"state_code"`
	BoundZone       string   `json:"bound_zone"`
	Zone            string   `json:"zone"`
	ForwardMode     string   `json:"forward_mode"`
	ForwardDevices  []string `json:"forward_devices"`
	Addresses       []string `json:"addresses"`
	Routes          []string `json:"routes"`
	NATAddressRange string   `json:"nat_address_range"`
	NATIPv6Range    string   `json:"nat_ipv6_address_range"`
	NATPortRange    string   `json:"nat_port_range"`
	NATIPv6         bool     `json:"nat_ipv6"`
	IPv6Guests      bool     `json:"ipv6_guests"`
	DHCP            bool     `json:"dhcp"`
	DNS             bool     `json:"dns"`
	TFTP            bool     `json:"tftp"`

	PortForwards []PortForward `json:"port_forwards"`
}

// PortForward is a port of the host that is forwarded to a guest.
type PortForward struct {
	ID           uint32 `json:"id"`
	Protocol     string `json:"protocol"`
	HostAddress  string `json:"host_address"`
	HostPort     uint16 `json:"host_port"`
	HostPortEnd  uint16 `json:"host_port_end"`
	GuestAddress string `json:"guest_address"`
	GuestPort    uint16 `json:"guest_port"`
}

// Host is the service as a whole.
type Host struct {
	Version           string   `json:"version"`
	Backend           string   `json:"backend"`
	ConfiguredBackend string   `json:"configured_backend"`
	BackendSource     string   `json:"backend_source"`
	AvailableBackends []string `json:"available_backends"`
	FirewalldRunning  bool     `json:"firewalld_running"`
	FirewalldBackend  string   `json:"firewalld_backend"`
	InstalledZones    []string `json:"installed_zones"`
}

// Finding is one thing that Diagnose found.
type Finding struct {
	ID       string `json:"id"`
	Severity string `json:"severity"` // info, warning or error
	Network  string `json:"network"`  // "" for the host
	Summary  string `json:"summary"`
	Evidence string `json:"evidence"`
	Remedy   string `json:"remedy"`
}

// Counters are one network's totals of forwarded packets.
type Counters struct {
	Name                     string `json:"name"`
	FromGuestPackets         uint64 `json:"from_guest_packets"`
	FromGuestBytes           uint64 `json:"from_guest_bytes"`
	ToGuestPackets           uint64 `json:"to_guest_packets"`
	ToGuestBytes             uint64 `json:"to_guest_bytes"`
	RejectedFromGuestPackets uint64 `json:"rejected_from_guest_packets"`
	RejectedToGuestPackets   uint64 `json:"rejected_to_guest_packets"`
}

// Ruleset is the rules of one network.
type Ruleset struct {
	Name    string `json:"name"`
	Ruleset string `json:"ruleset"`
}

type properties map[string]dbus.Variant

// network reads a network's properties. One that is missing keeps its zero
// value: an older service may not have it yet.
func (p properties) network() (Network, error) {
	n := Network{
		ForwardDevices: []string{}, Addresses: []string{}, Routes: []string{},
		PortForwards: []PortForward{},
	}
	var forwards []map[string]dbus.Variant
	err := p.store(map[string]any{
		"Name": &n.Name, "UUID": &n.UUID, "Bridge": &n.Bridge, "BridgeIndex": &n.BridgeIndex,
		"Persistent": &n.Persistent, "Backend": &n.Backend,
		"State": &n.State, "StateReason": &n.StateReason, "StateCode": &n.StateCode, "BoundZone": &n.BoundZone, "Zone": &n.Zone,
		"ForwardMode": &n.ForwardMode, "ForwardDevices": &n.ForwardDevices,
		"Addresses": &n.Addresses, "Routes": &n.Routes,
		"NATAddressRange": &n.NATAddressRange, "NATIPv6AddressRange": &n.NATIPv6Range, "NATPortRange": &n.NATPortRange, "NATIPv6": &n.NATIPv6,
		"IPv6Guests": &n.IPv6Guests, "DHCP": &n.DHCP, "DNS": &n.DNS, "TFTP": &n.TFTP,
		"PortForwards": &forwards,
	})
	for _, p := range forwards {
		var f PortForward
		err = errors.Join(err, properties(p).store(map[string]any{
			"Id": &f.ID, "Protocol": &f.Protocol, "HostAddress": &f.HostAddress, "HostPort": &f.HostPort,
			"HostPortEnd": &f.HostPortEnd, "GuestAddress": &f.GuestAddress, "GuestPort": &f.GuestPort,
		}))
		n.PortForwards = append(n.PortForwards, f)
	}
	return n, err
}

func (p properties) host() (Host, error) {
	h := Host{AvailableBackends: []string{}, InstalledZones: []string{}}
	err := p.store(map[string]any{
		"Version": &h.Version, "Backend": &h.Backend, "ConfiguredBackend": &h.ConfiguredBackend,
		"BackendSource": &h.BackendSource, "AvailableBackends": &h.AvailableBackends,
		"FirewalldRunning": &h.FirewalldRunning, "FirewalldBackend": &h.FirewalldBackend,
		"InstalledZones": &h.InstalledZones,
	})
	return h, err
}

func (p properties) finding() (f Finding, err error) {
	return f, p.store(map[string]any{
		"Id": &f.ID, "Severity": &f.Severity, "Network": &f.Network,
		"Summary": &f.Summary, "Evidence": &f.Evidence, "Remedy": &f.Remedy,
	})
}

func (p properties) store(fields map[string]any) error {
	for name, to := range fields {
		v, ok := p[name]
		if !ok {
			continue
		}
		if err := v.Store(to); err != nil {
			return fmt.Errorf("reading the property %s: %w", name, err)
		}
	}
	return nil
}

// nameOf returns the name of the network with an object path, in which each byte
// outside [A-Za-z0-9] is escaped as _xx. It returns "" for any other path.
func nameOf(path dbus.ObjectPath) string {
	escaped, ok := strings.CutPrefix(string(path), string(ManagerPath)+"/network/")
	if !ok {
		return ""
	}
	var name strings.Builder
	for i := 0; i < len(escaped); i++ {
		if escaped[i] != '_' {
			name.WriteByte(escaped[i])
			continue
		}
		var b byte
		if i+2 >= len(escaped) {
			return ""
		}
		if _, err := fmt.Sscanf(escaped[i+1:i+3], "%02x", &b); err != nil {
			return ""
		}
		name.WriteByte(b)
		i += 2
	}
	return name.String()
}
