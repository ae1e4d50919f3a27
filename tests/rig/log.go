package rig

import (
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// Uncovered is what the service logs when iptables takes over.
const Uncovered = "iptables holds libvirt's own rules"

// complaint matches lines of the service's log that need attention, and what the
// runtime or the race detector writes.
var complaint = regexp.MustCompile(`^(warn|error): |^(WARNING: DATA RACE|panic: |fatal error: |SIGQUIT)`)

// complaints are those that a test expects of the service.
type complaints struct {
	announced []string // parts of log lines
	seen      sync.Map // states of networks that the test saw, as parts of log lines
}

// Announce expects these complaints in the service's log, which the test provokes:
// each is a part of the expected lines. An unannounced complaint fails the test.
func (c *complaints) Announce(parts ...string) { c.announced = append(c.announced, parts...) }

// saw expects the line about a network that is in a state.
func (c *complaints) saw(network, state string) {
	c.seen.Store([2]string{" network=" + network + " ", " state=" + state}, true)
}

// check checks the logs of all instances of the service that the test started.
func (c *complaints) check(t testing.TB, processes []*host.Process) {
	for _, p := range processes {
		if p.Name != "virtfirewalld" {
			continue
		}
		for line := range strings.Lines(p.Log()) {
			if complaint.MatchString(line) && !c.expected(line) {
				t.Errorf("the service complained (Announce says that a test expects it): %s", strings.TrimSpace(line))
			}
		}
	}
}

func (c *complaints) expected(line string) bool {
	for _, part := range c.announced {
		if strings.Contains(line, part) {
			return true
		}
	}
	saw := false
	c.seen.Range(func(parts, _ any) bool {
		saw = strings.Contains(line, parts.([2]string)[0]) && strings.Contains(line, parts.([2]string)[1])
		return !saw
	})
	return saw
}
