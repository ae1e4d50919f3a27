package neighbour

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// links maps interface indexes to the names of the targets' bridges: libvirt's own
// tables match indexes.
type links map[uint32]string

// linksOf returns the index that each bridge has now. One that does not exist is
// left out: rules with its former index match nothing.
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

// name returns a bridge's name, or, for an interface that is none of the targets', a
// name that no interface can have.
func (l links) name(index uint32) string {
	if name, ok := l[index]; ok {
		return name
	}
	return fmt.Sprintf("/%d", index)
}
