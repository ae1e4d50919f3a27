package client

import (
	"context"
)

// Host is the state of the service as a whole.
func (c *Client) Host(ctx context.Context) (Host, error) {
	p, err := c.properties(ctx, ManagerPath, ManagerInterface)
	if err != nil {
		return Host{}, err
	}
	return p.host()
}

// Reload makes the service read its configuration and its files again.
func (c *Client) Reload(ctx context.Context) error {
	return c.change(ctx, ManagerPath, ManagerInterface+".Reload", nil)
}

// Reapply makes the service mend what differs from what should be. It gives
// the number of networks that needed it.
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
// that the forward mode calls for.
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
