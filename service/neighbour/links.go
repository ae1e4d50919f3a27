package neighbour

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// links are the names of the targets' bridges by interface index: libvirt's own
// tables match indexes.
type links map[uint32]string

// linksOf asks the kernel for the index that each bridge has now. One that does
// not exist has none, and rules with the index that it had match nothing.
func linksOf(t targets) (links, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a socket to ask for interfaces: %w", err)
	}
	defer unix.Close(fd)
	out := make(links, len(t.bridges))
	for name := range t.bridges {
		request, err := unix.NewIfreq(name)
		if err == nil {
			err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request)
		}
		if errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("asking for the index of bridge %s: %w", name, err)
		}
		out[request.Uint32()] = name
	}
	return out, nil
}

// name gives an interface that is none of the targets' a name that no interface
// has.
func (l links) name(index uint32) string {
	if name, ok := l[index]; ok {
		return name
	}
	return fmt.Sprintf("/%d", index)
}
