package packets

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/tests/model"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestVerdictsOfTheCorpusAreTheModels compares packets between the networks of the
// parser's documents with the model. Those that share a subnet are on different
// hosts.
func TestVerdictsOfTheCorpusAreTheModels(t *testing.T) {
	t.Parallel()
	for i, group := range apart(corpus(t)) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			s := seed(t)
			var networks []model.Network
			for j := range group {
				networks = append(networks, modelled(&group[j]))
			}
			w := newWires(t, s, networks, model.NFTables)
			for j := range group {
				text, err := group[j].XML()
				rig.Must(t, err)
				w.documents[networks[j].Name] = string(text)
			}
			w.govern()
			w.compareBoth(fmt.Sprintf("corpus %d", i), 30)
		})
	}
}

// corpus returns the networks of the documents under names and on bridges and
// devices of their own. No firewalld is there that could have a zone.
func corpus(t *testing.T) (all []network.Network) {
	t.Helper()
	files, err := filepath.Glob(rig.Source("service/network/testdata/*.xml"))
	rig.Must(t, err)
	for i, file := range files {
		text, err := os.ReadFile(file)
		rig.Must(t, err)
		n, err := network.FromXML(text)
		rig.Must(t, err)
		n.Name, n.Bridge, n.Zone = fmt.Sprintf("net%d", i), fmt.Sprintf("virbr%d", i), ""
		n.Devices = []string{"wan0", "lan0", "strange0"}[:min(3, len(n.Devices))]
		all = append(all, n)
	}
	return all
}

// apart puts networks that share a subnet into different groups.
func apart(all []network.Network) (groups [][]network.Network) {
	for _, n := range all {
		i := slices.IndexFunc(groups, func(group []network.Network) bool {
			return !slices.ContainsFunc(group, func(other network.Network) bool { return shareSubnet(n, other) })
		})
		if i < 0 {
			i, groups = len(groups), append(groups, nil)
		}
		groups[i] = append(groups[i], n)
	}
	return groups
}

func shareSubnet(a, b network.Network) bool {
	for _, s := range slices.Concat(a.Addresses, a.Routes) {
		if slices.ContainsFunc(slices.Concat(b.Addresses, b.Routes), s.Overlaps) {
			return true
		}
	}
	return false
}

// modelled returns a network as the model has it. Its first guest is the gateway
// of all that is behind one.
func modelled(n *network.Network) model.Network {
	m := model.Network{
		Name: n.Name, Bridge: n.Bridge, Mode: model.Mode(n.Mode), Addresses: n.Addresses, Devices: n.Devices,
		NAT6: n.NATIPv6, GuestIPv6: n.IPv6Guests,
		Pool:  model.Range{First: n.NATAddresses.First, Last: n.NATAddresses.Last},
		Pool6: model.Range{First: n.NATAddresses6.First, Last: n.NATAddresses6.Last},
		Ports: [2]uint16{n.NATPorts.First, n.NATPorts.Last},
	}
	if n.Mode == network.ModeIsolated {
		m.Mode = model.Isolated
	}
	for _, subnet := range n.Routes {
		var gateway netip.Addr
		if guests := m.Guest(0, subnet.Addr().Is6()); len(guests) > 0 {
			gateway = guests[0]
		}
		m.Routes = append(m.Routes, model.Behind{Subnet: subnet, Gateway: gateway})
	}
	return m
}
