package client

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	// slowAfter is how long a call lasts before the user is told what it waits for.
	slowAfter = 2 * time.Second
	// slowAgain is how long it takes until the user is told of progress.
	slowAgain = 5 * time.Second
	// slowTimeout is for the questions that find out.
	slowTimeout = time.Second
)

// The codes of a network whose bridge is not in its zone.
const (
	zoneNotBound    = "zone-not-bound"
	firewalldSilent = "firewalld-unresponsive"
)

// watchSlow tells Slow what a call waits for once it is slow, and whenever that is
// something else, until stop is called; stop returns when nothing more is told.
func (c *Client) watchSlow(ctx context.Context, method string, changes bool) (stop func()) {
	if c.options.Slow == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		told := ""
		for pause := slowAfter; ; pause = slowAgain {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			if why := c.waitsFor(ctx, method, changes); why != told && ctx.Err() == nil {
				c.options.Slow(why)
				told = why
			}
		}
	})
	return func() {
		cancel()
		watching.Wait()
	}
}

// waitsFor returns what a call of a method waits for, as far as the service says. One
// that changes nothing never waits for firewalld.
func (c *Client) waitsFor(ctx context.Context, method string, changes bool) string {
	asking := &Client{conn: c.conn, options: Options{Timeout: slowTimeout, NoAutoStart: true}}
	networks, err := asking.Networks(ctx)
	if err != nil {
		return "virtfirewalld, which does not answer yet"
	}
	if why := firewalldsPart(networks); why != "" && changes {
		return why
	}
	return "virtfirewalld, which is still " + describe(method[strings.LastIndex(method, ".")+1:])
}

// firewalldsPart returns what networks wait for if that is firewalld, else "".
func firewalldsPart(networks []Network) string {
	bound, queued := 0, 0
	for _, n := range networks {
		switch {
		case n.StateCode == firewalldSilent:
			return "firewalld, which does not answer; see systemctl status firewalld"
		case n.StateCode == zoneNotBound:
			queued++
		case n.BoundZone != "":
			bound++
		}
	}
	if queued == 0 {
		return ""
	}
	return fmt.Sprintf("firewalld, which moves bridges into their zones (%d of %d)", bound, bound+queued)
}
