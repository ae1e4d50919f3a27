package nftables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// owned are the flags of a protected table that outlives its owner. Only both
// together are useful: with the first alone the rules would end with the process.
const owned = nftables.TableFlagOwner | nftables.TableFlagPersist

// scratch returns a table whose name only this connection uses.
func (b *Backend) scratch(flags nftables.TableFlags) nftables.Table {
	return nftables.Table{
		Family: nftables.TableFamilyINet, Flags: flags,
		Name: fmt.Sprintf("libvirt_network_probe_%d", b.PortID()),
	}
}

// Probe tests whether the kernel can hold the rules: it creates and deletes a
// scratch table with all expressions in use. A kernel without the module for an
// expression answers ENOENT, as for a missing table.
func (b *Backend) Probe(ctx context.Context) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	if err := b.ready(ctx); err != nil {
		return err
	}
	if err := checkRelease(); err != nil {
		return err
	}
	t, err := b.probeTransaction()
	if err != nil {
		return err
	}
	// A table with only the owner flag vanishes if the process dies now.
	tab := b.scratch(b.possible & nftables.TableFlagOwner)
	err = transact(b.wire, func(c *nftables.Conn) error { return t.queue(c, tab) })
	if err != nil && !errors.Is(err, errUnknown) {
		return fmt.Errorf("probing nf_tables: %w", err)
	}
	if err == nil {
		err = b.probeReading(ctx, tab.Name, t.chains)
	}
	drop := &transaction{drop: true}
	return errors.Join(err, transact(b.wire, func(c *nftables.Conn) error { return drop.queue(c, tab) }))
}

// probeReading tests whether the kernel returns the expressions of rules as they
// were sent. If it does not, rules are compared by their user data alone.
func (b *Backend) probeReading(ctx context.Context, table string, chains []ruleset.Chain) error {
	got := make(map[string]digest)
	err := b.reader.read(ctx, func(c *nfnl.Conn) error {
		clear(got)
		inTable := []netlink.Attribute{nfnl.Named(unix.NFTA_RULE_TABLE, table)}
		return c.Dump(unix.NFT_MSG_GETRULE, unix.NFPROTO_INET, inTable, func(body nfnl.Attributes) {
			chain := body.Text(unix.NFTA_RULE_CHAIN)
			print, _ := fingerprintOf(body.Get(unix.NFTA_RULE_USERDATA))
			got[chain] = got[chain].add(print).add(sumOfExpressions(body.Get(unix.NFTA_RULE_EXPRESSIONS)))
		})
	})
	if err != nil {
		return fmt.Errorf("reading what was probed: %w", err)
	}
	for _, c := range chains {
		want, err := planner{sums: sums{}}.digestOf(c.Rules)
		if err != nil {
			return err
		}
		if want != got[c.Name] && !b.reader.userDataOnly {
			b.planner.userDataOnly, b.reader.userDataOnly = true, true
			b.log.Warn("This kernel gives rules back otherwise than they were sent: one that another program replaces under the service's mark is not noticed.", "chain", c.Name)
		}
	}
	return nil
}

// checkRelease refuses kernels whose postrouting chains see no input interface:
// they accept the rules and never translate. That cannot be probed without
// packets (Linux 5.7, commit 28f715b9e6c5).
func checkRelease() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("asking for the kernel's release: %w", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("reading the kernel's release %q: %w", release, err)
	}
	if major < 5 || major == 5 && minor < 7 {
		return fmt.Errorf("kernel %s is too old for the nftables backend, which needs 5.7: set firewall_backend = \"iptables\"", release)
	}
	return nil
}

// probeFlags tests whether a table can be owned and persistent.
func (b *Backend) probeFlags() error {
	if !b.config.Owned {
		b.probed = true
		return nil
	}
	tab := b.scratch(owned)
	err := transact(b.wire, func(c *nftables.Conn) error {
		c.AddTable(&tab)
		c.DelTable(&tab)
		return nil
	})
	switch {
	case err == nil:
		b.possible = owned
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		b.log.Info("The kernel cannot protect the table from other programs (it takes Linux 6.9); damage is repaired instead.")
	default:
		return fmt.Errorf("probing whether a table can be owned: %w", err)
	}
	b.probed = true
	return nil
}

// chooseFlags sets the table flags of each batch. A table's flags cannot be
// changed, except that an orphan may be owned again.
func (b *Backend) chooseFlags(o *observed) {
	persistent := o.flags & uint32(nftables.TableFlagPersist)
	switch {
	case !o.exists:
		b.flags = b.possible
	case persistent != 0 && b.possible != 0:
		b.flags = owned
	default:
		b.flags = nftables.TableFlags(persistent)
		if b.possible != 0 {
			b.log.Info("The table is not protected from other programs until it is made anew, with the first network after the last has gone.")
		}
	}
}

// probeTransaction returns the skeleton with one network that uses everything.
func (b *Backend) probeTransaction() (*transaction, error) {
	t := &transaction{}
	skeleton(t, b.base(ruleset.Interface{Index: 1 << 30, Name: "probe"}))
	var s steps
	err := planner{sets: b.planner.sets}.converge(&s, present{}, probePart())
	t.add(&s.now)
	return t, err
}

func probePart() ruleset.Part {
	names := ruleset.NamesOf("probe")
	net4, net6 := netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("2001:db8::/64")
	first, last := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	ports := ruleset.Ports{First: 1024, Last: 65535}
	return ruleset.Part{
		Network:  "probe",
		Counters: []string{names.From},
		Chains: []ruleset.Chain{
			{Name: names.From, Rules: []ruleset.Rule{
				{Matches: []ruleset.Match{ruleset.OutDevice{Name: "probe"}, ruleset.Source{Prefix: net4}}, Counter: names.From, Action: ruleset.Accept{}},
				{Matches: []ruleset.Match{ruleset.Family{IPv6: true}}, Action: ruleset.Drop{}},
				{Matches: []ruleset.Match{ruleset.InDevice{Name: "probe"}, ruleset.Replies{}}, Action: ruleset.Goto{Chain: ruleset.ChainRefuse}},
			}},
			{Name: names.NAT, Rules: []ruleset.Rule{
				{Matches: []ruleset.Match{ruleset.Source{Prefix: net6}, ruleset.Protocol{}}, Action: ruleset.Masquerade{Ports: ports}},
				{Matches: []ruleset.Match{ruleset.Source{Prefix: net4}, ruleset.Protocol{UDP: true}}, Action: ruleset.SNAT{First: first, Last: last, Ports: ports}},
			}},
		},
		Elements: []ruleset.Element{
			{Set: ruleset.SetBystandersID, Index: 1 << 30},
			{Set: "same_bridge_name", Name: "probe"},
			{Set: "from_id", Index: 1 << 30, Goto: names.From},
			{Set: "nat_name", Name: "probe", Goto: names.NAT},
			{Set: "families_id", Index: 1 << 30, IPv6: true},
			{Set: "may_leave4_id", Index: 1 << 30, Addresses: [2]netip.Addr{first}},
			{Set: "untranslated6_name", Name: "probe", Addresses: [2]netip.Addr{net6.Addr(), net6.Addr()}},
		},
	}
}
