package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/virtfirewalld/virtfirewalld/service/xtables"
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

	helpless bool            // it was logged that there is no way
	unfit    map[string]bool // bridges that were logged for their names
}

// NewChecksums makes it; nothing is touched yet. Its method is for one
// goroutine at a time.
func NewChecksums(log *slog.Logger) *Checksums {
	return &Checksums{log: log, tc: newCsumFilters(), tables: &checksumRules{}}
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
		if !c.helpless {
			c.log.Warn("DHCP replies may carry bad checksums, which some guests refuse: the kernel has no tc csum action, "+
				"and iptables with its CHECKSUM target does not work here; install iptables, or load act_csum and start the service again",
				"reason", err, "bridges", slices.Sorted(maps.Keys(left)))
		}
		c.helpless = true
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
	fit, unfit := make(map[string]string, len(bridges)), make(map[string]bool)
	for bridge, network := range bridges {
		if xtables.IsPlain(bridge) {
			fit[bridge] = network
			continue
		}
		unfit[bridge] = true
		if !c.unfit[bridge] {
			c.log.Warn("DHCP replies on a bridge may carry bad checksums: iptables could misread the bridge's name; "+
				"rename it to letters and digits", "bridge", bridge, "network", network)
		}
	}
	c.unfit = unfit
	return fit
}
