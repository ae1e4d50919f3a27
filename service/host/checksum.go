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

// errUnsupported means that the host cannot fill in checksums with iptables.
var errUnsupported = errors.New("this host has no way to fill in checksums")

// Checksums fills in the UDP checksums of DHCP replies on bridges. The host
// leaves them to a network card, but on the way to a guest there is none, and
// guests that check, such as FreeBSD, drop the reply. It uses the kernel's tc
// action if it exists, else the CHECKSUM target of iptables. Writing a zero in
// place of the checksum would not do: it breaks packets of ports that do not leave
// checksums to the card.
type Checksums struct {
	log    *slog.Logger
	tc     *csumFilters
	tables *checksumRules

	warned bool            // it was logged that the host cannot do it
	unfit  map[string]bool // bridges that were logged for their names
}

// NewChecksums returns Checksums and changes nothing. Fill is not safe for
// concurrent use.
func NewChecksums(log *slog.Logger) *Checksums {
	return &Checksums{log: log, tc: newCsumFilters(), tables: &checksumRules{}}
}

// DHCP is what a bridge serves it for.
type DHCP struct {
	Network string
	// Index is the bridge's, 0 for any: one that was made anew since is another.
	Index int
	// Starting reports that libvirt may be about to set the bridge's bandwidth up.
	Starting bool
}

// Fill makes sure that checksums are filled in on exactly these bridges, each for
// its network's DHCP replies, and restores what another program removed. A host
// that cannot do it is no error.
func (c *Checksums) Fill(ctx context.Context, bridges map[string]DHCP) error {
	left, err := c.tc.fill(ctx, bridges)
	if err != nil {
		return fmt.Errorf("filling in DHCP checksums with tc: %w", err)
	}
	left = c.withoutUnfit(left)
	err = c.tables.fill(ctx, left)
	if errors.Is(err, errUnsupported) {
		if !c.warned {
			c.log.Warn("DHCP replies may carry bad checksums, which some guests refuse: the kernel has no tc csum action, "+
				"and iptables with its CHECKSUM target does not work here; install iptables, or load act_csum and start the service again",
				"reason", err, "bridges", slices.Sorted(maps.Keys(left)))
		}
		c.warned = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("filling in DHCP checksums with iptables: %w", err)
	}
	return nil
}

// withoutUnfit leaves out bridges whose names iptables-restore could misread.
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
