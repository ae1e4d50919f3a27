package main

import (
	"context"
	"fmt"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

const (
	iptablesRounds = 20
	mostOfAdd      = 2 // what an Update or a removal may take, in medians of an add
	switches       = 5
	settle         = 500 * time.Millisecond // what follows a move in the background
)

// backend moves every network to a backend, and sees that it did.
func (b *bed) backend(name string) (took time.Duration, err error) {
	begin := time.Now()
	if err := b.call("SetBackend", name, options{}); err != nil {
		return 0, fmt.Errorf("moving to %s: %w", name, err)
	}
	took = time.Since(begin)
	v, err := b.bus.Object(managerName, managerPath).GetProperty(managerName + ".Backend")
	if err != nil {
		return 0, err
	}
	if v.Value() != name {
		return 0, fmt.Errorf("moving to %s: the backend is %v", name, v)
	}
	return took, nil
}

// useIptablesNFT chooses the variant, whatever the machine's own is.
func (b *bed) useIptablesNFT() error {
	for _, name := range []string{"iptables", "ip6tables"} {
		if _, err := b.Run("update-alternatives", "--set", name, "/usr/sbin/"+name+"-nft"); err != nil {
			return err
		}
	}
	return nil
}

// withIptables runs the service, with nftables at first, where iptables is
// iptables-nft.
func withIptables(bin string, measure func(*bed) error) error {
	return withBed(bin, func(b *bed) error {
		if err := b.useIptablesNFT(); err != nil {
			return err
		}
		if _, err := b.start(); err != nil {
			return err
		}
		return measure(b)
	})
}

// grow adds networks from present on until there are count. The nftables backend
// does it whichever comes after: a thousand adds with the other would take most
// of the time.
func (b *bed) grow(present, count int) error {
	if _, err := b.backend("nftables"); err != nil {
		return err
	}
	return b.addRange(present, count)
}

// measureAddIptables adds networks as the first measurement does, with libvirt's
// own rules.
func measureAddIptables(bin string, s *section) error {
	s.title = "AddNetwork, Update and RemoveNetwork with the iptables backend"
	s.how = fmt.Sprintf("iptables-nft; runtime network, warm connection, no firewalld, no bridges. %d adds each, with a change of the translated ports and a removal after each.", iptablesRounds)
	return withIptables(bin, func(b *bed) error {
		present := 0
		for _, count := range []int{0, 100, many} {
			if err := b.grow(present, count); err != nil {
				return err
			}
			present = count
			if _, err := b.backend("iptables"); err != nil {
				return err
			}
			time.Sleep(settle)
			adds, updates, removes, err := b.changeRounds(numbered(extra), iptablesRounds)
			if err != nil {
				return err
			}
			limit := mostOfAdd * adds.median()
			s.add(fmt.Sprintf("add beside %d", count), adds.String())
			s.limit(fmt.Sprintf("update beside %d", count), updates.String(), milliseconds(limit), updates.median() <= limit)
			s.limit(fmt.Sprintf("remove beside %d", count), removes.String(), milliseconds(limit), removes.median() <= limit)
		}
		return nil
	})
}

// changeRounds measures AddNetwork, Update and RemoveNetwork.
func (b *bed) changeRounds(n network, rounds int) (adds, updates, removes times, err error) {
	for i := range warmUp + rounds {
		var path godbus.ObjectPath
		steps := []func() error{
			func() error { return b.callFor(&path, "AddNetworkFromXML", n.xml(libvirtPort), options{}) },
			func() error { return b.update(path, options{"NATPortRange": godbus.MakeVariant("2000-3000")}) },
			func() error { return b.remove(n, nil) },
		}
		for j, into := range []*times{&adds, &updates, &removes} {
			begin := time.Now()
			if err := steps[j](); err != nil {
				return nil, nil, nil, err
			}
			if i >= warmUp {
				*into = append(*into, time.Since(begin))
			}
		}
	}
	return adds, updates, removes, nil
}

// update changes settings of a network.
func (b *bed) update(path godbus.ObjectPath, settings options) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return b.bus.Object(managerName, path).CallWithContext(ctx, managerName+".Network.Update", 0, settings, options{}).Err
}

// measureSwitch moves networks between the backends.
func measureSwitch(bin string, s *section) error {
	s.title = "Moving between the backends"
	s.how = fmt.Sprintf("SetBackend over D-Bus, from the client's call to its answer: the new rules are all there and the old ones gone. iptables-nft, no firewalld, no bridges. %d moves each way; in brackets the longest.", switches)
	return withIptables(bin, func(b *bed) error {
		present := 0
		for _, count := range []int{1, 100, many} {
			if err := b.grow(present, count); err != nil {
				return err
			}
			present = count
			var there, back times
			for range switches {
				for _, one := range []struct {
					into *times
					to   string
				}{{&there, "iptables"}, {&back, "nftables"}} {
					took, err := b.backend(one.to)
					if err != nil {
						return err
					}
					*one.into = append(*one.into, took)
					time.Sleep(settle)
				}
			}
			s.add(fmt.Sprintf("%d to iptables", count), there.String())
			s.add(fmt.Sprintf("%d to nftables", count), back.String())
		}
		return nil
	})
}
