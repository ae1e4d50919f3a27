package main

import (
	"context"
	"fmt"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/systemd"
)

// statusPause is how long changes gather before systemctl status has them: a
// thousand networks can change at once.
const statusPause = 100 * time.Millisecond

// followStatus keeps the line that systemctl status shows as it should be.
func (d *daemon) followStatus(ctx context.Context) {
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.changed:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(statusPause):
		}
		if now := d.status(); now != said {
			d.tell(systemd.Status(now))
			said = now
		}
	}
}

// noteChange asks for a look at the status.
func (d *daemon) noteChange() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

func (d *daemon) status() string {
	found, _ := d.service.Diagnose(context.Background()) // reads memory, and cannot fail
	return statusText(d.service.AllNetworks(), found, d.service.HostStatus().Backend)
}

// statusText is one line: how many networks there are, how many of them are in
// which other state than active, and the worst of the reasons.
func statusText(networks []service.Status, found []finding.Finding, backend string) string {
	text := fmt.Sprintf("%d networks", len(networks))
	if len(networks) == 1 {
		text = "1 network"
	}
	counts := map[service.State]int{}
	for _, n := range networks {
		counts[n.State]++
	}
	for _, state := range []service.State{service.StateFailed, service.StateDegraded, service.StateWaiting} {
		if n := counts[state]; n > 0 {
			text += fmt.Sprintf(", %d %s", n, state)
		}
	}
	text += ", " + backend
	return text + worst(found)
}

// worst is the first finding that somebody has to do something about.
func worst(found []finding.Finding) string {
	for _, f := range found {
		if f.Severity() == finding.Info {
			continue
		}
		of := "; "
		if f.Network != "" {
			of = "; " + f.Network + ": "
		}
		return of + f.Reason()
	}
	return ""
}
