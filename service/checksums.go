package service

import (
	"context"
	"log/slog"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/host"
)

const (
	// dhcpPause is how long changes of bridges gather before checksum help
	// follows them: each round runs a process, and they come in bursts.
	dhcpPause = 50 * time.Millisecond
	// dhcpShare keeps checksum help for many bridges, where iptables writes
	// all of them again, to one part in so many of the time: it holds the kernel's
	// lock on nftables, which the networks' own changes wait for.
	dhcpShare = 10
)

// fillChecksums keeps checksum help on the bridges that serve DHCP.
func (s *Service) fillChecksums(ctx context.Context) (never time.Time) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	bridges, state := s.rules.dhcpBridges(), s.libvirt.libvirtState.State()
	for bridge, served := range bridges {
		served.Starting = state.MayStart(bridge)
		bridges[bridge] = served
	}
	if err := s.host.FillChecksums(ctx, bridges); err != nil {
		s.log.complain(ctx, slog.LevelWarn, "DHCP replies may carry bad checksums", err)
	}
	return never
}

// dhcpBridges are the bridges that DHCP replies leave by, with their networks.
func (rs *rules) dhcpBridges() map[string]host.DHCP {
	want := make(map[string]host.DHCP)
	if rs.backend().Name() == choice.IPTables {
		return want // libvirt's own rules fill them in
	}
	for _, m := range rs.networks.All() {
		if m.present() && m.servesDHCPv4() {
			want[m.iface()] = host.DHCP{Network: m.net.Name, Index: m.bridge.index}
		}
	}
	return want
}
