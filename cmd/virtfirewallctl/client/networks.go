package client

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
)

type options map[string]dbus.Variant

// set adds an option if it is on: an absent one is off by default.
func (o options) set(name string, on bool) options {
	if on {
		o[name] = dbus.MakeVariant(true)
	}
	return o
}

// Add adds the network of a libvirt <network> document, and returns it as the
// service shows it.
func (c *Client) Add(ctx context.Context, xml string, persistent, replace bool) (Network, error) {
	if err := checkXML(xml); err != nil {
		return Network{}, err
	}
	o := options{}.set("Persistent", persistent).set("Replace", replace)
	var path dbus.ObjectPath
	err := c.change(ctx, ManagerPath, ManagerInterface+".AddNetworkFromXML", []any{xml, o}, &path)
	if err != nil {
		return Network{}, err
	}
	return c.networkAt(ctx, path)
}

// Preview returns the rules that Add would put into the kernel.
func (c *Client) Preview(ctx context.Context, xml, backend string) (string, error) {
	if err := checkXML(xml); err != nil {
		return "", err
	}
	var ruleset string
	err := c.read(ctx, ManagerPath, ManagerInterface+".Preview", []any{xml, backend}, &ruleset)
	return ruleset, err
}

func checkXML(xml string) error {
	if len(xml) > MaxXMLBytes {
		return fmt.Errorf("the document is longer than %d bytes", MaxXMLBytes)
	}
	return text("the document", xml)
}

// Remove makes the service stop managing a network.
func (c *Client) Remove(ctx context.Context, name string, persistent bool) error {
	if err := text("the network's name", name); err != nil {
		return err
	}
	o := options{}.set("Persistent", persistent)
	return c.change(ctx, ManagerPath, ManagerInterface+".RemoveNetwork", []any{name, o})
}

// Networks returns all networks, sorted by name.
func (c *Client) Networks(ctx context.Context) ([]Network, error) {
	var objects map[dbus.ObjectPath]map[string]map[string]dbus.Variant
	const method = "org.freedesktop.DBus.ObjectManager.GetManagedObjects"
	if err := c.read(ctx, ManagerPath, method, nil, &objects); err != nil {
		return nil, err
	}
	networks := make([]Network, 0, len(objects))
	for path, interfaces := range objects {
		p, ok := interfaces[NetworkInterface]
		if !ok {
			continue
		}
		n, err := properties(p).network()
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		networks = append(networks, n)
	}
	slices.SortFunc(networks, func(a, b Network) int { return strings.Compare(a.Name, b.Name) })
	return networks, nil
}

// Network returns the network of that name.
func (c *Client) Network(ctx context.Context, name string) (Network, error) {
	path, err := c.path(ctx, name)
	if err != nil {
		return Network{}, err
	}
	return c.networkAt(ctx, path)
}

func (c *Client) networkAt(ctx context.Context, path dbus.ObjectPath) (Network, error) {
	p, err := c.properties(ctx, path, NetworkInterface)
	if err != nil {
		return Network{}, err
	}
	return p.network()
}

func (c *Client) path(ctx context.Context, name string) (dbus.ObjectPath, error) {
	if err := text("the network's name", name); err != nil {
		return "", err
	}
	var path dbus.ObjectPath
	err := c.read(ctx, ManagerPath, ManagerInterface+".GetNetwork", []any{name}, &path)
	return path, err
}

func (c *Client) properties(ctx context.Context, path dbus.ObjectPath, iface string) (properties, error) {
	var p map[string]dbus.Variant
	err := c.read(ctx, path, propertiesIface+".GetAll", []any{iface}, &p)
	return p, err
}

// Ruleset returns the rules in the kernel of the network of that name.
func (c *Client) Ruleset(ctx context.Context, name string) (Ruleset, error) {
	path, err := c.path(ctx, name)
	if err != nil {
		return Ruleset{}, err
	}
	r := Ruleset{Name: name}
	err = c.read(ctx, path, NetworkInterface+".GetRuleset", nil, &r.Ruleset)
	return r, err
}

// Counters returns the totals of the network of that name.
func (c *Client) Counters(ctx context.Context, name string) (Counters, error) {
	path, err := c.path(ctx, name)
	if err != nil {
		return Counters{}, err
	}
	var t map[string]uint64
	if err := c.read(ctx, path, NetworkInterface+".GetCounters", nil, &t); err != nil {
		return Counters{}, err
	}
	return Counters{
		Name:             name,
		FromGuestPackets: t["FromGuestPackets"], FromGuestBytes: t["FromGuestBytes"],
		ToGuestPackets: t["ToGuestPackets"], ToGuestBytes: t["ToGuestBytes"],
		RejectedFromGuestPackets: t["RejectedFromGuestPackets"],
		RejectedToGuestPackets:   t["RejectedToGuestPackets"],
	}, nil
}
