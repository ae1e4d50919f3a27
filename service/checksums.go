package service

import (
	"context"
	"log/slog"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
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
	if err := s.host.FillChecksums(ctx, s.rules.dhcpBridges()); err != nil {
		s.log.complain(ctx, slog.LevelWarn, "DHCP replies may carry bad checksums", err)
	}
	return never
}

// dhcpBridges are the bridges that DHCP replies leave by, with their networks.
func (rs *rules) dhcpBridges() map[string]string {
	want := make(map[string]string)
	if rs.backend().Name() == choice.IPTables {
		return want // libvirt's own rules fill them in
	}
	for _, m := range rs.networks.All() {
		if m.present() && m.servesDHCPv4() {
			want[m.iface()] = m.net.Name
		}
	}
	return want
}
