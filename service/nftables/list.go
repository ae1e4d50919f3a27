package nftables

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// Text returns what the kernel holds of a network, in nft syntax; "" for one that
// was not installed or of which nothing is left. It asks only for what belongs
// to the network, so that it costs the same beside a thousand others.
func (b *Backend) Text(ctx context.Context, network string) (string, error) {
	b.state.RLock()
	in, ok := b.installed[network]
	b.state.RUnlock()
	if !ok {
		return "", nil
	}
	var l lister
	err := b.reader.read(ctx, func(c *nfnl.Conn) error {
		l = lister{planner: b.planner, conn: c, want: in.part, have: ruleset.Part{Network: network}, earlier: in.earlier.names(network)}
		l.totals = make(map[string]ruleset.Total, len(in.part.Counters))
		return l.all()
	})
	if err != nil {
		return "", fmt.Errorf("reading network %s from table %s: %w", network, ruleset.TableName, err)
	}
	if len(l.have.Chains)+len(l.have.Elements)+len(l.have.Counters)+len(l.notes) == 0 {
		return "", nil
	}
	listing := ruleset.Listing{Dormant: l.dormant, Notes: l.notes, Totals: l.totals}
	return listing.Text(ruleset.SetsOf(ruleset.Base(ruleset.Interface{}), l.have), l.have), nil
}

// lister collects in have what the kernel has of want.
type lister struct {
	planner
	conn       *nfnl.Conn
	want, have ruleset.Part
	earlier    []string // counters
	dormant    bool
	notes      []string
	totals     map[string]ruleset.Total
}

func (l *lister) all() error {
	table := []netlink.Attribute{nfnl.Named(unix.NFTA_TABLE_NAME, ruleset.TableName)}
	found, err := get(l.conn, unix.NFT_MSG_GETTABLE, table, func(body nfnl.Attributes) {
		l.dormant = body.Uint32(unix.NFTA_TABLE_FLAGS)&unix.NFT_TABLE_F_DORMANT != 0
	})
	if err != nil || !found {
		return err
	}
	for _, name := range append(l.earlier, l.want.Counters...) {
		if err := l.counter(name); err != nil {
			return err
		}
	}
	for _, c := range l.want.Chains {
		if err := l.chain(c); err != nil {
			return err
		}
	}
	return l.elements()
}

// get asks for an object and reports whether it exists.
func get(conn *nfnl.Conn, message int, attrs []netlink.Attribute, each func(nfnl.Attributes)) (found bool, err error) {
	err = conn.Get(message, unix.NFPROTO_INET, attrs, func(body nfnl.Attributes) {
		found = true
		each(body)
	})
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return found, err
}

func (l *lister) counter(name string) error {
	return getCounter(l.conn, name, func(t ruleset.Total) {
		l.have.Counters = append(l.have.Counters, name)
		l.totals[name] = t
	})
}

// chain lists the chain's rules in their order. A rule is the service's if it
// does what a rule of the wanted chain does.
func (l *lister) chain(want ruleset.Chain) error {
	at := []netlink.Attribute{nfnl.Named(unix.NFTA_CHAIN_TABLE, ruleset.TableName), nfnl.Named(unix.NFTA_CHAIN_NAME, want.Name)}
	found, err := get(l.conn, unix.NFT_MSG_GETCHAIN, at, func(body nfnl.Attributes) {
		if body.Has(unix.NFTA_CHAIN_HOOK) {
			l.notes = append(l.notes, "chain "+want.Name+" is another program's base chain")
		}
	})
	if err != nil || !found {
		return err
	}
	ours := make(map[uint64]ruleset.Rule, len(want.Rules))
	for _, r := range want.Rules {
		sum, err := sumOfRule(r)
		if err != nil {
			return err
		}
		if l.userDataOnly {
			sum = fingerprint(r)
		}
		ours[sum] = r
	}
	have := ruleset.Chain{Name: want.Name}
	err = l.conn.Dump(unix.NFT_MSG_GETRULE, unix.NFPROTO_INET, at, func(body nfnl.Attributes) {
		if body.Text(unix.NFTA_RULE_CHAIN) == want.Name {
			have.Rules = append(have.Rules, l.rule(body, ours))
		}
	})
	l.have.Chains = append(l.have.Chains, have)
	return err
}

// rule returns which of our rules the kernel's is, by what it does, or Foreign.
func (l *lister) rule(body nfnl.Attributes, ours map[uint64]ruleset.Rule) ruleset.Rule {
	sum := sumOfExpressions(body.Get(unix.NFTA_RULE_EXPRESSIONS))
	if l.userDataOnly {
		sum, _ = fingerprintOf(body.Get(unix.NFTA_RULE_USERDATA))
	}
	if r, ok := ours[sum]; ok {
		return r
	}
	return ruleset.Rule{Action: ruleset.Foreign{Handle: body.Uint64(unix.NFTA_RULE_HANDLE)}}
}

func (l *lister) elements() error {
	all, err := l.planner.elements(l.want)
	if err != nil {
		return err
	}
	for i, e := range all {
		err := getElement(l.conn, e.elementKey, func(have element, total ruleset.Total) {
			if have.content == e.content {
				like := l.want.Elements[i]
				like.Total = total
				l.have.Elements = append(l.have.Elements, like)
				return
			}
			l.notes = append(l.notes, fmt.Sprintf("%s has another program's element for %s", e.set, keyText(l.sets[e.set], e.key)))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func nest(typ uint16, data []byte) ([]byte, error) {
	return netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NLA_F_NESTED | typ, Data: data}})
}
