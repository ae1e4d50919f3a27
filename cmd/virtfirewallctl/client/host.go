package client

import (
	"cmp"
	"context"
	"slices"

	"github.com/godbus/dbus/v5"
)

// Host returns the state of the service as a whole.
func (c *Client) Host(ctx context.Context) (Host, error) {
	p, err := c.properties(ctx, ManagerPath, ManagerInterface)
	if err != nil {
		return Host{}, err
	}
	return p.host()
}

// Diagnose returns the problems that the service finds, the worst first. It needs
// an administrator, who is asked to authenticate if Prompt is set.
func (c *Client) Diagnose(ctx context.Context) ([]Finding, error) {
	var raw []map[string]dbus.Variant
	ask := c.read
	if c.options.Prompt != nil {
		ask = c.change
	}
	if err := ask(ctx, ManagerPath, ManagerInterface+".Diagnose", nil, &raw); err != nil {
		return nil, err
	}
	findings := make([]Finding, len(raw))
	for i, p := range raw {
		var err error
		if findings[i], err = properties(p).finding(); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.rank(), a.rank()), cmp.Compare(a.Network, b.Network), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Summary, b.Summary))
	})
	return findings, nil
}

// rank orders severities. An unknown one ranks as an error.
func (f Finding) rank() int {
	switch f.Severity {
	case "info":
		return 0
	case "warning":
		return 1
	}
	return 2
}

// Notable reports whether a finding is more than information.
func (f Finding) Notable() bool { return f.rank() > 0 }

// Reload makes the service read its configuration and its files again.
func (c *Client) Reload(ctx context.Context) error {
	return c.change(ctx, ManagerPath, ManagerInterface+".Reload", nil)
}

// Reapply makes the service repair what differs from the intended state. It
// returns the number of networks that needed it.
func (c *Client) Reapply(ctx context.Context) (repairs uint32, err error) {
	err = c.change(ctx, ManagerPath, ManagerInterface+".Reapply", nil, &repairs)
	return repairs, err
}

// SetBackend moves every network to a backend: auto, nftables or iptables.
func (c *Client) SetBackend(ctx context.Context, backend string, persistent bool) error {
	o := options{}.set("Persistent", persistent)
	return c.change(ctx, ManagerPath, ManagerInterface+".SetBackend", []any{backend, o})
}

// InstallZones adds the missing libvirt zones and policies to firewalld.
func (c *Client) InstallZones(ctx context.Context, force bool) (installed []string, err error) {
	o := options{}.set("Force", force)
	installed = []string{}
	err = c.change(ctx, ManagerPath, ManagerInterface+".InstallZones", []any{o}, &installed)
	return installed, err
}

// RemoveZones takes out of firewalld what InstallZones added.
func (c *Client) RemoveZones(ctx context.Context, force, unbind bool) (removed []string, err error) {
	o := options{}.set("Force", force).set("Unbind", unbind)
	removed = []string{}
	err = c.change(ctx, ManagerPath, ManagerInterface+".RemoveZones", []any{o}, &removed)
	return removed, err
}

// Bind puts a managed network's bridge into a firewalld zone; "" means the one
// for its forward mode.
func (c *Client) Bind(ctx context.Context, iface, zone string) (bound string, err error) {
	if err := text("the interface's name", iface); err != nil {
		return "", err
	}
	if err := text("the zone's name", zone); err != nil {
		return "", err
	}
	err = c.change(ctx, ManagerPath, ManagerInterface+".BindInterface", []any{iface, zone}, &bound)
	return bound, err
}

// Unbind takes a managed network's bridge out of its firewalld zone.
func (c *Client) Unbind(ctx context.Context, iface string) error {
	if err := text("the interface's name", iface); err != nil {
		return err
	}
	return c.change(ctx, ManagerPath, ManagerInterface+".UnbindInterface", []any{iface})
}
