package neighbour

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
)

// tableName is that of libvirt's own tables, of the families ip and ip6. This
// service's table has the same name and is of the family inet.
const tableName = "libvirt_network"

// hookChain is the base chain of libvirt's tables that jumps to their chains for
// forwarding.
const hookChain = "forward"

// roleOf returns the role of a chain of libvirt's tables.
func roleOf(chain string) role {
	switch chain {
	case "guest_cross":
		return roleCross
	case "guest_input":
		return roleTo
	case "guest_output":
		return roleFrom
	case "guest_nat":
		return roleNAT
	case "postroute_mangle": // libvirt 10.8 and 10.9 alone
		return roleMangle
	}
	return roleNone
}

func familyOf(ipv6 bool) byte {
	if ipv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// session reads nf_tables over one connection. It parses only what it needs: other
// programs may have put anything into the tables.
type session struct{ *nfnl.Conn }

// survey is what a family's part of nf_tables has that may be libvirt's.
type survey struct {
	table        bool // libvirt's own, which has no owner
	xtables      bool // chains of libvirt's in tables of iptables-nft
	onlyLibvirts bool // nothing would be left in the table but what libvirt makes
	handles      []handle
	finding      finding
}

// handle is a rule to remove.
type handle struct {
	chain  string
	number uint64
}

// overview finds out in two requests whether the rules have to be read.
func (s session) overview(ipv6 bool) (v survey, err error) {
	v.finding.where = "table " + family(ipv6) + " " + tableName
	err = s.Dump(unix.NFT_MSG_GETTABLE, familyOf(ipv6), nil, func(a nfnl.Attributes) {
		if a.Text(unix.NFTA_TABLE_NAME) == tableName {
			v.table = nftables.TableFlags(a.Uint32(unix.NFTA_TABLE_FLAGS))&nftables.TableFlagOwner == 0
		}
	})
	if err != nil {
		return v, err
	}
	v.onlyLibvirts = true
	err = s.Dump(unix.NFT_MSG_GETCHAIN, familyOf(ipv6), nil, func(a nfnl.Attributes) {
		table, chain := a.Text(unix.NFTA_CHAIN_TABLE), a.Text(unix.NFTA_CHAIN_NAME)
		if table == tableName {
			v.onlyLibvirts = v.onlyLibvirts && (chain == hookChain || roleOf(chain) != roleNone)
		}
		_, known := libvirtChain(table, chain)
		v.xtables = v.xtables || known
	})
	return v, err
}

func family(ipv6 bool) string {
	if ipv6 {
		return "ip6"
	}
	return "ip"
}

// rules collects the rules of the targets, and checks whether there are others.
func (s session) rules(v *survey, ipv6 bool, t targets) error {
	links, err := linksOf(t)
	if err != nil {
		return err
	}
	inTable := []netlink.Attribute{nfnl.Named(unix.NFTA_RULE_TABLE, tableName)}
	return s.Dump(unix.NFT_MSG_GETRULE, familyOf(ipv6), inTable, func(a nfnl.Attributes) {
		if a.Text(unix.NFTA_RULE_TABLE) != tableName {
			return
		}
		chain, number := a.Text(unix.NFTA_RULE_CHAIN), a.Uint64(unix.NFTA_RULE_HANDLE)
		r, ok := decode(a.Get(unix.NFTA_RULE_EXPRESSIONS), ipv6, links.name)
		// libvirt comments no rule.
		ok = ok && !a.Has(unix.NFTA_RULE_USERDATA)
		network, ours := "", false
		if ok {
			network, ours = t.owner(r, roleOf(chain))
		}
		if ours {
			v.finding.addRules(network, 1)
			v.handles = append(v.handles, handle{chain, number})
			return
		}
		if t.concerns(r.in, r.out, r.src.String(), r.dst.String()) {
			v.finding.kept = append(v.finding.kept, fmt.Sprintf("chain %s, handle %d", chain, number))
		}
		target, isJump := jump(a.Get(unix.NFTA_RULE_EXPRESSIONS))
		v.onlyLibvirts = v.onlyLibvirts && isJump && chain == hookChain && roleOf(target) != roleNone && !a.Has(unix.NFTA_RULE_USERDATA)
	})
}

// extras checks for sets and other objects, which libvirt does not make.
func (s session) extras(v *survey, ipv6 bool) error {
	for message, table := range map[int]netlink.Attribute{
		unix.NFT_MSG_GETSET:       nfnl.Named(unix.NFTA_SET_TABLE, tableName),
		unix.NFT_MSG_GETOBJ:       nfnl.Named(unix.NFTA_OBJ_TABLE, tableName),
		unix.NFT_MSG_GETFLOWTABLE: nfnl.Named(unix.NFTA_SET_TABLE, tableName), // NFTA_FLOWTABLE_TABLE,
	} {
		err := s.Dump(message, familyOf(ipv6), []netlink.Attribute{table}, func(a nfnl.Attributes) {
			// The table's name has the same number in all three.
			v.onlyLibvirts = v.onlyLibvirts && a.Text(unix.NFTA_SET_TABLE) != tableName
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// generation returns the generation of the network namespace's rulesets. Every
// program's transaction increments it.
func (s session) generation() (id uint32, err error) {
	err = s.Get(unix.NFT_MSG_GETGEN, unix.AF_UNSPEC, nil, func(a nfnl.Attributes) {
		id = a.Uint32(unix.NFTA_GEN_ID)
	})
	return id, err
}

// survey returns what a family has.
func (s session) survey(ipv6 bool, t targets) (v survey, err error) {
	if v, err = s.overview(ipv6); err != nil || !v.table {
		return v, err
	}
	if err := s.rules(&v, ipv6, t); err != nil {
		return v, err
	}
	if v.onlyLibvirts {
		err = s.extras(&v, ipv6)
	}
	return v, err
}

// add records what was removed.
func (v *survey) add(gone survey, tables bool) {
	f := gone.finding
	v.finding.where, v.finding.kept = f.where, f.kept
	for network, n := range f.networks {
		v.finding.addRules(network, n)
	}
	if gone.table && gone.onlyLibvirts && tables {
		v.finding.gone = append(v.finding.gone, "the table")
	}
}

// removeRules deletes the rules of both tables in one transaction, and with tables
// also those tables that have no others. If generation is not 0, the kernel refuses
// it if anything has changed since. A rule's handle is reused only if the table was
// recreated meanwhile.
func removeRules(surveys [2]survey, generation uint32, tables bool) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("preparing a transaction: %w", err)
	}
	n := 0
	for i, v := range surveys {
		table := &nftables.Table{Name: tableName, Family: nftables.TableFamily(familyOf(i == 1))}
		if v.table && v.onlyLibvirts && tables {
			conn.DelTable(table)
			n++
			continue
		}
		for _, h := range v.handles {
			rule := &nftables.Rule{Table: table, Chain: &nftables.Chain{Table: table, Name: h.chain}, Handle: h.number}
			if err := conn.DelRule(rule); err != nil {
				return fmt.Errorf("encoding the removal of a rule of chain %s: %w", h.chain, err)
			}
			n++
		}
	}
	if n == 0 {
		return nil
	}
	err = conn.FlushWithGenID(generation)
	if errors.Is(err, unix.ERESTART) {
		return nfnl.ErrChanged
	}
	if err != nil {
		return fmt.Errorf("removing what libvirt left in its tables: %w", err)
	}
	return nil
}

// surveyAll reads both families at one generation.
func surveyAll(ctx context.Context, t targets) (surveys [2]survey, generation uint32, err error) {
	conn, err := nfnl.Open(ctx, 0)
	if err != nil {
		return surveys, 0, fmt.Errorf("opening a netfilter netlink socket: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	s := session{conn}
	if generation, err = s.generation(); err != nil {
		return surveys, 0, fmt.Errorf("reading libvirt's tables: %w", err)
	}
	for i := range surveys {
		if surveys[i], err = s.survey(i == 1, t); err != nil {
			return surveys, 0, fmt.Errorf("reading libvirt's tables: %w", err)
		}
	}
	return surveys, generation, nil
}
