package host

import (
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Tap is the network card of a machine that has no kernel: frames are read from
// it and written to it. One costs a hundredth of a guest, and nothing answers or
// filters in the test's place.
type Tap struct {
	*os.File
	Device string           // on the host
	MAC    net.HardwareAddr // of the machine
}

// Tap makes a tap device on the host. It is down, and in no bridge; number makes
// the machine's MAC address. The test closes it.
func (h *Host) Tap(device string, number uint16) *Tap {
	tap := &Tap{Device: device, MAC: net.HardwareAddr{0x52, 0x54, 0, 0, byte(number >> 8), byte(number)}}
	err := h.openTap(tap)
	if err != nil {
		err = fmt.Errorf("making tap %s: %w", device, err)
	}
	h.fail(err)
	return tap
}

// openTap opens the device in the host's network namespace, where it appears.
func (h *Host) openTap(tap *Tap) error {
	request, err := unix.NewIfreq(tap.Device)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	return h.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("opening /dev/net/tun: %w", err)
		}
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			unix.Close(fd)
			return err
		}
		tap.File = os.NewFile(uintptr(fd), tap.Device)
		return nil
	})
}

// AwaitLinks waits until bridges and other devices carry packets: the kernel
// finishes links in the background. A tap's state stays unknown.
func (h *Host) AwaitLinks(devices ...string) {
	h.fail(h.space.await("waiting for links", func(nl *netlink.Handle) (string, error) {
		for _, device := range devices {
			link, err := nl.LinkByName(device)
			if err != nil {
				return "", err
			}
			_, isTap := link.(*netlink.Tuntap)
			if state := link.Attrs().OperState; state != netlink.OperUp && (!isTap || state != netlink.OperUnknown) {
				return fmt.Sprintf("%s is %s", device, state), nil
			}
		}
		return "", nil
	}))
}
