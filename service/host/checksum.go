package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
)

// errNoHelp is what a way of help says of a host that does not have it.
var errNoHelp = errors.New("this host has no way to fill in checksums")

// Checksums fills in the UDP checksums of DHCP replies on bridges. The host
// leaves them to a network card, but on the way to a guest there is none, and
// guests that look, such as FreeBSD, drop the reply. The kernel's tc action
// does it where there is one, else the CHECKSUM target of iptables. Writing a
// zero in place of the checksum is no way out: it breaks packets of ports that
// do not leave checksums to the card.
type Checksums struct {
	log    *slog.Logger
	tc     *csumFilters
	tables *checksumRules
	told   map[string]bool // what was logged already
}

// NewChecksums makes it; nothing is touched yet. Its method is for one
// goroutine at a time.
func NewChecksums(log *slog.Logger) *Checksums {
	return &Checksums{log: log, tc: newCsumFilters(), tables: newChecksumRules(), told: make(map[string]bool)}
}

// Fill sees to it that exactly these bridges have help, each for its network's
// DHCP replies, and puts back what somebody else took away. A host that cannot
// help is no error.
func (c *Checksums) Fill(ctx context.Context, bridges map[string]string) error {
	left, err := c.tc.fill(ctx, bridges)
	if err != nil {
		return fmt.Errorf("filling in DHCP checksums with tc: %w", err)
	}
	left = c.withoutUnfit(left)
	err = c.tables.fill(ctx, left)
	if errors.Is(err, errNoHelp) {
		c.tell("DHCP replies may carry bad checksums, which some guests refuse: "+
			"the kernel has no tc csum action, and iptables with its CHECKSUM target does not work here; install iptables, or load act_csum and start the service again",
			"reason", err, "bridges", slices.Sorted(maps.Keys(left)))
		return nil
	}
	if err != nil {
		return fmt.Errorf("filling in DHCP checksums with iptables: %w", err)
	}
	return nil
}

// withoutUnfit leaves out bridges whose names iptables-restore could take for
// something else.
func (c *Checksums) withoutUnfit(bridges map[string]string) map[string]string {
	fit := make(map[string]string, len(bridges))
	for bridge, network := range bridges {
		if isPlain(bridge) {
			fit[bridge] = network
			continue
		}
		c.tell(fmt.Sprintf("DHCP replies on bridge %q may carry bad checksums: iptables could misread its name; "+
			"rename the bridge to letters and digits", bridge), "network", network)
	}
	return fit
}

// tell logs each message once.
func (c *Checksums) tell(message string, args ...any) {
	if !c.told[message] {
		c.told[message] = true
		c.log.Warn(message, args...)
	}
}
