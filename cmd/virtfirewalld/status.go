package main

import (
	"context"
	"fmt"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/systemd"
)

// statusPause is how long changes are collected before systemctl status shows
// them: a thousand networks can change at once.
const statusPause = 100 * time.Millisecond

// followStatus updates the line that systemctl status shows.
func (d *daemon) followStatus(ctx context.Context) {
	shown := ""
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
		if now := d.status(); now != shown {
			d.logFailed(systemd.Status(now))
			shown = now
		}
	}
}

// triggerStatus makes followStatus check the status.
func (d *daemon) triggerStatus() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

func (d *daemon) status() string {
	found, _ := d.service.Diagnose(context.Background()) // reads memory, and cannot fail
	return statusText(d.service.AllNetworks(), found, d.service.HostStatus().Backend)
}

// statusText returns one line: the number of networks, how many of them are in
// each state other than active, and the worst finding.
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

// worst returns the first finding that somebody has to do something about.
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
