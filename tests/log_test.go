package tests

import (
	"regexp"
	"strings"
)

// complaint is a line of the service's log that somebody should look at, and
// what the runtime or the race detector writes.
var complaint = regexp.MustCompile(`^(warn|error): |^(WARNING: DATA RACE|panic: |fatal error: |SIGQUIT)`)

// Announce says that the test provokes these complaints in the service's log:
// each is a part of the lines meant. A complaint that nobody announced fails
// the test.
func (r *rig) Announce(parts ...string) { r.announced = append(r.announced, parts...) }

// checkLogs looks through the logs of all instances of the service that the
// test started.
func (r *rig) checkLogs() {
	for _, p := range r.Processes() {
		if p.Name != "virtfirewalld" {
			continue
		}
		for line := range strings.Lines(p.Log()) {
			if complaint.MatchString(line) && !r.isAnnounced(line) {
				r.t.Errorf("the service complained (Announce says that a test expects it): %s", strings.TrimSpace(line))
			}
		}
	}
}

func (r *rig) isAnnounced(line string) bool {
	for _, part := range r.announced {
		if strings.Contains(line, part) {
			return true
		}
	}
	saw := false
	r.seen.Range(func(parts, _ any) bool {
		saw = strings.Contains(line, parts.([2]string)[0]) && strings.Contains(line, parts.([2]string)[1])
		return !saw
	})
	return saw
}
