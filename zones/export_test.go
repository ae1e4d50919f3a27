package zones

import (
	"context"
	"time"
)

// SetRoot is for a firewalld that sees another file tree than the test does.
func (c *Client) SetRoot(root string) { c.root = root }

// SetTimeouts shortens the patience with a firewalld that does not answer.
func (c *Client) SetTimeouts(call, reload time.Duration) { c.timeout, c.reload = call, reload }

// ZoneOf is the zone that an interface is in, "" for none.
func (c *Client) ZoneOf(ctx context.Context, iface string) (string, error) {
	var zone string
	err := c.call(ctx, rootPath, zoneInterface+".getZoneOfInterface", []any{iface}, &zone)
	if hasCode(err, "UNKNOWN_INTERFACE") {
		return "", nil
	}
	return zone, wrap("looking up the zone of "+iface, err)
}
