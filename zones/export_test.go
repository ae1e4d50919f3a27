package zones

import "time"

// SetRoot is for a firewalld that sees another file tree than the test does.
func (c *Client) SetRoot(root string) { c.root = root }

// SetTimeouts shortens the patience with a firewalld that does not answer.
func (c *Client) SetTimeouts(call, reload time.Duration) { c.timeout, c.reload = call, reload }
