package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	warmUp = 5
	rounds = 60

	most      = 4 * time.Millisecond // AddNetwork's median, whatever is there
	mostExtra = 2 * time.Millisecond // with 1,000 networks more than with none
)

// extra is the network that is added and removed again beside the others.
const extra = 2000

// addRounds measures AddNetwork and RemoveNetwork.
func (b *bed) addRounds(n network, o options, rounds int) (adds, removes times, err error) {
	for i := range warmUp + rounds {
		begin := time.Now()
		if err := b.add(n, o); err != nil {
			return nil, nil, err
		}
		added := time.Since(begin)
		begin = time.Now()
		if err := b.remove(n, o); err != nil {
			return nil, nil, err
		}
		if i >= warmUp {
			adds, removes = append(adds, added), append(removes, time.Since(begin))
		}
	}
	return adds, removes, nil
}

// measureAdd is the figure that counts: a warm connection, runtime networks
// with their bridges, no firewalld.
func measureAdd(bin string, s *section) error {
	s.title = "AddNetwork over D-Bus"
	s.how = fmt.Sprintf("Runtime network, warm connection, no firewalld, all bridges there: from the client's call to its answer. %d adds each, with a removal after each.", rounds)
	return started(bin, func(b *bed) error {
		if err := b.addBridges(extra, extra+1); err != nil {
			return err
		}
		var first time.Duration
		present := 0
		for _, count := range []int{0, 100, 1000} {
			if err := b.addBridges(present, count); err != nil {
				return err
			}
			if err := b.addRange(present, count); err != nil {
				return err
			}
			present = count
			time.Sleep(time.Second) // what follows the last add in the background
			adds, removes, err := b.addRounds(numbered(extra), nil, rounds)
			if err != nil {
				return err
			}
			median := adds.median()
			s.limit(fmt.Sprintf("add beside %d", count), adds.String(), "median "+milliseconds(most), median <= most)
			s.add(fmt.Sprintf("remove beside %d", count), removes.String())
			if count == 0 {
				first = median
			}
			if count == 1000 {
				s.limit("1,000 more than 0", milliseconds(median-first), milliseconds(mostExtra), median-first <= mostExtra)
			}
		}
		return nil
	})
}

// measureAddWaiting is the same without bridges.
func measureAddWaiting(bin string, s *section) error {
	s.title = "AddNetwork, bridges not there yet"
	s.how = "As above, but no bridge exists: all networks are waiting."
	return started(bin, func(b *bed) error {
		present := 0
		for _, count := range []int{0, 1000} {
			if err := b.addRange(present, count); err != nil {
				return err
			}
			present = count
			adds, _, err := b.addRounds(numbered(extra), nil, rounds)
			if err != nil {
				return err
			}
			s.add(fmt.Sprintf("add beside %d", count), adds.String())
		}
		return nil
	})
}

// measureAddPersistent keeps the files on the machine's own disk, where fsync
// means something.
func measureAddPersistent(bin string, s *section) error {
	s.title = "AddNetwork with Persistent"
	s.how = "As the first, but persistent, with /etc/virtfirewalld on the machine's disk; each call syncs a file and its folder."
	return withBed(bin, func(b *bed) error {
		disk, err := os.MkdirTemp(bin, ".disk-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(disk)
		if err := b.mount(disk, "/etc/virtfirewalld"); err != nil {
			return err
		}
		if _, err := b.start(); err != nil {
			return err
		}
		if err := b.addBridges(extra, extra+1); err != nil {
			return err
		}
		present := 0
		for _, count := range []int{0, 100, 1000} {
			if err := b.addBridges(present, count); err != nil {
				return err
			}
			if err := b.addRange(present, count); err != nil {
				return err
			}
			present = count
			adds, removes, err := b.addRounds(numbered(extra), persistent, rounds)
			if err != nil {
				return err
			}
			s.add(fmt.Sprintf("add beside %d", count), adds.String())
			s.add(fmt.Sprintf("remove beside %d", count), removes.String())
		}
		return nil
	})
}

// mount puts a folder of the machine's disk at a path in the host, whose own
// files are in memory.
func (b *bed) mount(dir, path string) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("taking %s along: %w", dir, err)
	}
	defer unix.Close(tree)
	return b.Inside(func() error {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		return unix.MoveMount(tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	})
}

// measureAddFirewalld has firewalld bind each bridge to its zone.
func measureAddFirewalld(bin string, s *section) error {
	s.title = "AddNetwork beside firewalld"
	s.how = "As the first, with firewalld (nftables backend) running and the zones installed: firewalld's own binding of the bridge is most of it."
	return withBed(bin, func(b *bed) error {
		b.Firewalld("nftables")
		if _, err := b.start(); err != nil {
			return err
		}
		if err := b.call("InstallZones", options{}); err != nil {
			return err
		}
		if err := b.addBridges(extra, extra+1); err != nil {
			return err
		}
		present := 0
		for _, count := range []int{0, 100} {
			if err := b.addBridges(present, count); err != nil {
				return err
			}
			if err := b.addRange(present, count); err != nil {
				return err
			}
			present = count
			adds, removes, err := b.addRounds(numbered(extra), nil, 20)
			if err != nil {
				return err
			}
			s.add(fmt.Sprintf("add beside %d", count), adds.String())
			s.add(fmt.Sprintf("remove beside %d", count), removes.String())
		}
		return nil
	})
}
