package main

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

const (
	// Many short rounds: what else a machine does changes within seconds, and is then
	// alike for all lanes of a round.
	pathRounds = 21
	pathFor    = 100 * time.Millisecond // of the sender's processor time, each way

	leastOfBare = 0.95 // of the rate with conntrack and one masquerade rule
	leastOfOne  = 0.97 // with many networks, of the rate with one
)

// The lanes that others are compared with.
const (
	bareLane = "conntrack and one masquerade rule"
	oneLane  = "ours, 1 network"
	manyLane = "ours, 1,000 networks"
)

// lane is a host that forwards in one way, and a flow through it.
type lane struct {
	name string
	*bed
	opened
	rounds []rates
}

// rates are packets that arrived for each second of the sender's processor time.
type rates struct{ out, in float64 }

// measurePath compares what forwarding small packets costs with our rules, with
// libvirt's and with others.
func measurePath(bin string, s *section) (err error) {
	s.title = "Forwarding of small packets"
	s.how = fmt.Sprintf(`UDP, 18 bytes of payload, one flow from a guest through NAT to the outside, and back: packets that arrive for each second
of processor time of the one thread that sends, which does all of the kernel's work for a packet. The ratio to %s,
on hosts of their own on one kernel, which take turns: median of %d rounds of %s each way, in brackets the
least and the most. libvirt is the real one of Debian trixie. The guest's network is the middle one of those that are there.`,
		bareLane, pathRounds, pathFor)
	var lanes []*lane
	defer func() {
		for _, l := range lanes {
			if l != nil {
				err = errors.Join(err, l.Close())
			}
		}
	}()
	if lanes, err = prepareLanes(bin); err != nil {
		return err
	}
	if err := takeTurns(lanes); err != nil {
		return err
	}
	compare(s, lanes)
	return nil
}

// prepareLanes makes the lanes at the same time: libvirt mostly waits for the
// programs that it runs. Those that could not be made are nil.
func prepareLanes(bin string) ([]*lane, error) {
	began := time.Now()
	lanes, errs := make([]*lane, len(makers)), make([]error, len(makers))
	var wait sync.WaitGroup
	for i, m := range makers {
		wait.Go(func() {
			err := guarded(func() (err error) { lanes[i], err = m.lane(bin); return err })
			if err != nil {
				errs[i] = fmt.Errorf("preparing %s: %w", m.name, err)
			}
			fmt.Printf("  (prepared %s after %.0f s)\n", m.name, time.Since(began).Seconds())
		})
	}
	wait.Wait()
	return lanes, errors.Join(errs...)
}

// takeTurns measures the lanes in turn, in either order.
func takeTurns(lanes []*lane) error {
	order := slices.Clone(lanes)
	for range pathRounds {
		for _, l := range order {
			if err := l.round(); err != nil {
				return fmt.Errorf("sending through %s: %w", l.name, err)
			}
		}
		slices.Reverse(order)
	}
	return nil
}

// round measures a lane once in both directions.
func (l *lane) round() (err error) {
	var r rates
	if r.out, err = rate(l.near, l.remote, l.to); err != nil {
		return err
	}
	if r.in, err = rate(l.far, l.seen, l.from); err != nil {
		return err
	}
	l.rounds = append(l.rounds, r)
	return nil
}

// maker makes a lane with a number of networks.
type maker struct {
	name  string
	count int
	make  func(b *bed, count int) error
	// trixie is set for a host of that release.
	trixie bool
}

var makers = []maker{
	{name: "no rules", count: 1, make: forwardOnly},
	{name: bareLane, count: 1, make: forwardBare},
	{name: oneLane, count: 1, make: forwardOurs},
	{name: manyLane, count: many, make: forwardOurs},
	{name: "libvirt with nftables, 1 network", count: 1, make: forwardLibvirt("nftables"), trixie: true},
	{name: "libvirt with nftables, 50 networks", count: 50, make: forwardLibvirt("nftables"), trixie: true},
	{name: "libvirt with nftables, 150 networks", count: 150, make: forwardLibvirt("nftables"), trixie: true},
	{name: "libvirt with iptables, 1 network", count: 1, make: forwardLibvirt("iptables"), trixie: true},
	{name: "libvirt with iptables, 50 networks", count: 50, make: forwardLibvirt("iptables"), trixie: true},
	{name: "libvirt with iptables, 150 networks", count: 150, make: forwardLibvirt("iptables"), trixie: true},
}

func (m maker) lane(bin string) (*lane, error) {
	var cfg host.Config
	if m.trixie {
		tree, err := exec.Command("tests/trixie.sh", "--path").Output()
		if err != nil {
			return nil, fmt.Errorf("finding trixie's tree: %w", err)
		}
		cfg.Root = strings.TrimSpace(string(tree))
	}
	b, err := newBed(bin, cfg)
	if err != nil {
		return nil, err
	}
	l := &lane{name: m.name, bed: b}
	if err := l.prepare(m); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return l, nil
}

func (l *lane) prepare(m maker) error {
	if _, err := l.Run("sysctl", "-qw", "net.ipv4.ip_forward=1"); err != nil {
		return err
	}
	if err := m.make(l.bed, m.count); err != nil {
		return err
	}
	n := numbered(m.count / 2)
	guest := guestEnd(l.Guest(n.bridge, "guest", n.guest()), n.bridge)
	var err error
	l.opened, err = flow{"NAT", guest, uplinkEnd(l.Internet())}.open(flowPort)
	return err
}

func forwardOnly(b *bed, _ int) error { return b.addBridges(0, 1) }

func forwardBare(b *bed, _ int) error {
	if err := b.addBridges(0, 1); err != nil {
		return err
	}
	_, err := b.RunInput(bareRules, "nft", "-f", "-")
	return err
}

func forwardOurs(b *bed, count int) error {
	if err := b.addBridges(0, count); err != nil {
		return err
	}
	if err := b.store(count, libvirtPort); err != nil {
		return err
	}
	_, err := b.start()
	return err
}

// compare adds the lanes' ratios to conntrack and one rule.
func compare(s *section, lanes []*lane) {
	named := map[string]*lane{}
	for _, l := range lanes {
		named[l.name] = l
	}
	bare := named[bareLane]
	var bareOut, bareIn series
	for _, r := range bare.rounds {
		bareOut, bareIn = append(bareOut, r.out), append(bareIn, r.in)
	}
	for _, l := range lanes {
		out, in := ratios(l.rounds, bare.rounds)
		text := "out " + out.String() + ", in " + in.String()
		switch l {
		case bare:
			s.add(l.name, fmt.Sprintf("out %.0f packets/s, in %.0f", bareOut.median(), bareIn.median()))
		case named[oneLane], named[manyLane]:
			s.limit(l.name, text, fmt.Sprint(leastOfBare), min(out.median(), in.median()) >= leastOfBare)
		default:
			s.add(l.name, text)
		}
	}
	out, in := ratios(named[manyLane].rounds, named[oneLane].rounds)
	s.limit("ours, 1,000 networks to 1", "out "+out.String()+", in "+in.String(), fmt.Sprint(leastOfOne), min(out.median(), in.median()) >= leastOfOne)
}
