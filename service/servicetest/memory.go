package servicetest

import (
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/backend"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// Memory is an in-memory platform, deterministic and fit for virtual time.
type Memory struct {
	Kernel    *Kernel
	Firewalld *Firewalld
	Links     *Links
	Needs     *Needs
	Libvirt   *Libvirt
	// LibvirtDir is where libvirt's status documents are.
	LibvirtDir string
	Table      *Touches // other programs' changes of the nft table
	Calls      *Touches // other programs' calls of iptables
	Foreign    *Foreign
}

// NewMemory returns a host with a firewalld that has the service's zones.
func NewMemory(t testing.TB) *Memory {
	dir := t.TempDir()
	return &Memory{
		Kernel: &Kernel{}, Firewalld: NewFirewalld(), Links: NewLinks(), Needs: NewNeeds(), Libvirt: NewLibvirt(dir), LibvirtDir: dir,
		Table: NewTouches(), Calls: NewTouches(), Foreign: NewForeign(),
	}
}

// Deps returns the dependencies of one run of the service.
func (m *Memory) Deps(_ testing.TB, start func(string) ruleset.Counters) (service.Deps, backend.Backend, func() error) {
	return service.Deps{
		Links: m.Links, Table: m.Table, Chains: m.Calls, Zones: m.Firewalld, Firewalld: m.Firewalld,
		Host: m.Needs, Advertisements: m.Needs, Leftovers: m.Libvirt, Libvirt: m.Libvirt, Foreign: m.Foreign,
	}, m.Kernel.Open(start), func() error { return nil }
}

// Rules returns what the kernel holds.
func (m *Memory) Rules() []string { return m.Kernel.Lines() }

// Zones returns the zones of interfaces.
func (m *Memory) Zones(testing.TB) map[string]string { return m.Firewalld.Bound() }
