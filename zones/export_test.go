package zones

import (
	"context"
	"time"
)

// SetRoot sets where firewalld's file tree is, if not at the test's root.
func (c *Client) SetRoot(root string) { c.root = root }

// SetTimeouts sets the time-outs of calls to firewalld.
func (c *Client) SetTimeouts(call, reload time.Duration) { c.timeout, c.reload = call, reload }

// ZoneOf returns the zone that an interface is in, "" for none.
func (c *Client) ZoneOf(ctx context.Context, iface string) (string, error) {
	var zone string
	err := c.call(ctx, rootPath, zoneInterface+".getZoneOfInterface", []any{iface}, &zone)
	if hasCode(err, "UNKNOWN_INTERFACE") {
		return "", nil
	}
	return zone, wrap("looking up the zone of "+iface, err)
}
