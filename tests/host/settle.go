package host

import (
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// settleTimeout is long because the kernel's lock on links is one for the whole
// machine: a neighbour that removes thousands of links holds it for many seconds.
const settleTimeout = time.Minute

// settle waits until the kernel's link work is done and packets pass on a
// device of the host: a link has no queue, and a port of a bridge does not
// forward, before its carrier was noticed.
func (h *Host) settle(device, bridge string) error {
	return h.space.netlink("waiting for "+device+" to carry packets", func(nl *netlink.Handle) error {
		if bridge != "" {
			link, err := nl.LinkByName(bridge)
			if err != nil {
				return err
			}
			if link.Attrs().Flags&net.FlagUp == 0 {
				return nil // whoever brings it up waits
			}
		}
		deadline := time.Now().Add(settleTimeout)
		for {
			waiting, err := h.unsettled(nl, device, bridge)
			if err != nil {
				return err
			}
			if waiting == "" {
				// The state is shown before the queue is there, but both are
				// made under the lock that this takes.
				_, err := nl.LinkByName(device)
				return err
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s after %s", waiting, settleTimeout)
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// unsettled says what does not carry packets yet.
func (h *Host) unsettled(nl *netlink.Handle, device, bridge string) (string, error) {
	for _, name := range []string{device, bridge} {
		if name == "" {
			continue
		}
		link, err := nl.LinkByName(name)
		if err != nil {
			return "", err
		}
		if state := link.Attrs().OperState; state != netlink.OperUp {
			return fmt.Sprintf("%s is still %s", name, state), nil
		}
	}
	if bridge == "" {
		return "", nil
	}
	state, err := h.ReadFile("/sys/class/net/" + device + "/brport/state")
	if err != nil {
		return "", err
	}
	const forwarding = "3" // BR_STATE_FORWARDING, linux/if_bridge.h
	if strings.TrimSpace(string(state)) != forwarding {
		return fmt.Sprintf("port %s does not forward", device), nil
	}
	return "", nil
}
