package service

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/binding"
	"github.com/virtfirewalld/virtfirewalld/service/host"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/watch"
)

// stubbornHost cannot switch forwarding on.
type stubbornHost struct{}

func (stubbornHost) Forward(context.Context, host.Demand) ([]string, string, error) {
	return nil, "", errors.New("the sysctl is read-only")
}
func (stubbornHost) ForwardingOff(host.Demand) ([]string, error)               { return nil, nil }
func (stubbornHost) ForwardingNeeded(host.Demand) []string                     { return nil }
func (stubbornHost) Silence(int) (bool, error)                                 { return false, nil }
func (stubbornHost) Restore(int) error                                         { return nil }
func (stubbornHost) Silenced() []int                                           { return nil }
func (stubbornHost) Retranslate(context.Context, []host.Guests) error          { return nil }
func (stubbornHost) FillChecksums(context.Context, map[string]host.DHCP) error { return nil }

// bareHost has no addresses.
type bareHost struct{ monitor }

func (bareHost) Addresses() []watch.Address { return nil }

type onlyName struct{ backend.Backend }

func (onlyName) Name() string { return choice.NFTables }

// A value that readers may hold is never written again: if finishing a change finds
// something new about the network, that makes a new value. Run with -race.
func TestSettlingWritesNoPublishedValue(t *testing.T) {
	s := New("test", Deps{Host: stubbornHost{}, Links: bareHost{}, Advertisements: stubbornHost{}, Totals: NewTotals(nil), Log: slog.New(slog.DiscardHandler), Notify: func(Event) {}})
	s.rules.active = onlyName{}
	n := network.Network{Name: "lab", Bridge: "virbr0", Mode: network.ModeNAT, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}
	held := managed{net: n, subnets: n.Subnets(), bridge: bridge{index: 7, name: "virbr0"}, zone: binding.State{Bound: "libvirt"}}.compiled()
	tr := transition{next: held}
	s.networks.Reserve(tr.change())

	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				s.NetworkStatus("lab")
			}
		}
	})
	// The zone has changed meanwhile, so the value is not copied for it.
	s.changes.settle(t.Context(), intent{transition: transition{next: managed{net: n}.compiled()}, cause: "AddNetwork"}, binding.State{})
	close(stop)
	reader.Wait()
	if len(held.noted) > 0 {
		t.Errorf("the published value was written: %v", held.noted)
	}
	if st, _ := s.NetworkStatus("lab"); st.State != StateDegraded {
		t.Errorf("the network is %s, want degraded: forwarding is off", st.State)
	}
}
