package host

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

// Links is what Needs reads about the host's links and addresses.
type Links interface {
	Routes
	Addresses() []watch.Address
}

// Needs provides what networks need of the host besides rules.
type Needs struct {
	links      Links
	log        *slog.Logger
	forwarding *Forwarding
	checksums  *Checksums
}

// NewNeeds returns Needs for the network namespace of the process. It changes
// nothing.
func NewNeeds(links Links, log *slog.Logger) *Needs {
	return &Needs{
		links: links, log: log,
		forwarding: NewForwarding(links, "/proc"),
		checksums:  NewChecksums(log),
	}
}

// Forward switches IP forwarding on where it is off, and returns what it switched
// on; problem is why that of IPv6 had to stay off, and what to set.
func (n *Needs) Forward(ctx context.Context, d Demand) (on []string, problem string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", fmt.Errorf("switching forwarding on: %w", err)
	}
	return n.forwarding.Enable(d)
}

// ForwardingOff returns what Forward would switch on.
func (n *Needs) ForwardingOff(d Demand) (off []string, err error) { return n.forwarding.Off(d) }

// ForwardingNeeded returns the settings that Forward checks.
func (n *Needs) ForwardingNeeded(d Demand) []string { return n.forwarding.Needed(d) }

// Retranslate deletes connections of these networks that began untranslated.
func (n *Needs) Retranslate(ctx context.Context, guests []Guests) error {
	deleted, err := Retranslate(ctx, guests, n.ownAddresses)
	if deleted > 0 {
		n.log.Info("connections that began before their translation begin anew", "connections", deleted)
	}
	return err
}

func (n *Needs) ownAddresses() []netip.Addr {
	var own []netip.Addr
	for _, a := range n.links.Addresses() {
		own = append(own, a.Prefix.Addr())
	}
	return own
}

// FillChecksums fills in DHCP checksums on exactly these bridges. It is not safe for
// concurrent use.
func (n *Needs) FillChecksums(ctx context.Context, bridges map[string]DHCP) error {
	return n.checksums.Fill(ctx, bridges)
}
