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

// tableOwner is NFTA_TABLE_OWNER, which x/sys does not have.
const tableOwner = 7

// observed is the table as the kernel holds it.
type observed struct {
	exists   bool
	flags    uint32
	owner    uint32 // netlink port, 0 for none
	chains   map[string]*observedChain
	sets     map[string]observedSet
	elements map[elementKey]content
	totals   map[elementKey]ruleset.Total // of elements that count
	counters map[string]counter
	// userDataOnly is the reader's.
	userDataOnly bool

	// What the service never makes.
	objects    []object
	flowtables []string
	catchall   bool // an element that has no key
}

// object is a named object of another kind than counters.
type object struct {
	name string
	kind uint32
}

type observedChain struct {
	rules    digest // of their fingerprints and their expressions
	foreign  bool   // holds a rule that the service did not make
	base     bool
	typ      string
	hook     uint32
	priority int32
	policy   uint32
}

type observedSet struct {
	flags, keyType, keyLength, dataType uint32
}

// observe reads the whole table.
func (r reader) observe(ctx context.Context) (*observed, error) {
	var o *observed
	err := r.read(ctx, func(c *nfnl.Conn) error {
		o = &observed{
			chains: make(map[string]*observedChain), sets: make(map[string]observedSet),
			elements: make(map[elementKey]content), totals: make(map[elementKey]ruleset.Total), counters: make(map[string]counter),
			userDataOnly: r.userDataOnly,
		}
		return o.fill(c)
	})
	if err != nil {
		return nil, fmt.Errorf("reading table %s: %w", ruleset.TableName, err)
	}
	return o, nil
}

func (o *observed) fill(conn *nfnl.Conn) error {
	err := conn.Get(unix.NFT_MSG_GETTABLE, unix.NFPROTO_INET, []netlink.Attribute{nfnl.Named(unix.NFTA_TABLE_NAME, ruleset.TableName)}, o.table)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	// The kernel lists chains of all tables of the family.
	if err := conn.Dump(unix.NFT_MSG_GETCHAIN, unix.NFPROTO_INET, nil, o.chain); err != nil {
		return err
	}
	inTable := []netlink.Attribute{nfnl.Named(unix.NFTA_RULE_TABLE, ruleset.TableName)}
	if err := conn.Dump(unix.NFT_MSG_GETRULE, unix.NFPROTO_INET, inTable, o.rule); err != nil {
		return err
	}
	if err := conn.Dump(unix.NFT_MSG_GETSET, unix.NFPROTO_INET, inTable, o.set); err != nil {
		return err
	}
	for name := range o.sets {
		attrs := []netlink.Attribute{nfnl.Named(unix.NFTA_SET_ELEM_LIST_TABLE, ruleset.TableName), nfnl.Named(unix.NFTA_SET_ELEM_LIST_SET, name)}
		elements := func(body nfnl.Attributes) { o.elementsOf(name, body) }
		if err := conn.Dump(unix.NFT_MSG_GETSETELEM, unix.NFPROTO_INET, attrs, elements); err != nil {
			return err
		}
	}
	err = conn.Dump(unix.NFT_MSG_GETFLOWTABLE, unix.NFPROTO_INET, inTable, o.flowtable)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return conn.Dump(unix.NFT_MSG_GETOBJ, unix.NFPROTO_INET, inTable, o.object)
}

// dormant reports whether the table exists and is dormant: the kernel then skips
// all of its chains.
func (o *observed) dormant() bool { return o.exists && o.flags&unix.NFT_TABLE_F_DORMANT != 0 }

// hasExtraBaseChain reports whether the table has a base chain that is not the
// service's: every network's packets pass through it.
func (o *observed) hasExtraBaseChain(base ruleset.Skeleton) bool {
	extra := 0
	for _, c := range o.chains {
		if c.base {
			extra++
		}
	}
	for _, c := range base.Chains {
		if have := o.chains[c.Name]; have != nil && have.base {
			extra--
		}
	}
	return extra > 0
}

func (o *observed) table(body nfnl.Attributes) {
	o.exists = true
	o.flags, o.owner = body.Uint32(unix.NFTA_TABLE_FLAGS), body.Uint32(tableOwner)
}

func (o *observed) chain(body nfnl.Attributes) {
	if body.Text(unix.NFTA_CHAIN_TABLE) != ruleset.TableName {
		return
	}
	c := &observedChain{typ: body.Text(unix.NFTA_CHAIN_TYPE)}
	if body.Has(unix.NFTA_CHAIN_HOOK) {
		hook := body.Get(unix.NFTA_CHAIN_HOOK)
		c.base, c.policy = true, body.Uint32(unix.NFTA_CHAIN_POLICY)
		c.hook, c.priority = hook.Uint32(unix.NFTA_HOOK_HOOKNUM), int32(hook.Uint32(unix.NFTA_HOOK_PRIORITY))
	}
	o.chains[body.Text(unix.NFTA_CHAIN_NAME)] = c
}

func (o *observed) rule(body nfnl.Attributes) {
	c := o.chains[body.Text(unix.NFTA_RULE_CHAIN)]
	if c == nil || body.Text(unix.NFTA_RULE_TABLE) != ruleset.TableName {
		return
	}
	sum, ok := fingerprintOf(body.Get(unix.NFTA_RULE_USERDATA))
	c.foreign = c.foreign || !ok
	c.rules = c.rules.add(sum)
	if !o.userDataOnly {
		c.rules = c.rules.add(sumOfExpressions(body.Get(unix.NFTA_RULE_EXPRESSIONS)))
	}
}

func (o *observed) object(body nfnl.Attributes) {
	name, kind := body.Text(unix.NFTA_OBJ_NAME), body.Uint32(unix.NFTA_OBJ_TYPE)
	switch {
	case body.Text(unix.NFTA_OBJ_TABLE) != ruleset.TableName:
	case kind != objectCounter:
		o.objects = append(o.objects, object{name, kind})
	default:
		o.counters[name] = counterOf(body)
	}
}

func (o *observed) flowtable(body nfnl.Attributes) {
	const table, name = 1, 2 // NFTA_FLOWTABLE_TABLE, NFTA_FLOWTABLE_NAME
	if body.Text(table) == ruleset.TableName {
		o.flowtables = append(o.flowtables, body.Text(name))
	}
}

// set records named sets; anonymous ones belong to their rules.
func (o *observed) set(body nfnl.Attributes) {
	s := observedSet{
		flags: body.Uint32(unix.NFTA_SET_FLAGS), keyType: body.Uint32(unix.NFTA_SET_KEY_TYPE),
		keyLength: body.Uint32(unix.NFTA_SET_KEY_LEN), dataType: body.Uint32(unix.NFTA_SET_DATA_TYPE),
	}
	if body.Text(unix.NFTA_SET_TABLE) == ruleset.TableName && s.flags&unix.NFT_SET_ANONYMOUS == 0 {
		o.sets[body.Text(unix.NFTA_SET_NAME)] = s
	}
}

func (o *observed) elementsOf(set string, body nfnl.Attributes) {
	for _, item := range nfnl.All(body.Get(unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
		e, total := parseElement(item)
		if e.key == "" {
			o.catchall = true
			continue
		}
		o.elements[elementKey{set, e.key}] = e.content
		if e.counts {
			o.totals[elementKey{set, e.key}] = total
		}
	}
}

// parseElement reads an element and what its counter has counted. A verdict other than
// goto, and attributes that the service's own elements never have (a time-out, other
// expressions), become a target that cannot be a chain's name.
func parseElement(item []byte) (e element, total ruleset.Total) {
	unexpected := ""
	for typ, value := range nfnl.All(item) {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			e.key = string(nfnl.Attributes(value).Get(unix.NFTA_DATA_VALUE))
		case unix.NFTA_SET_ELEM_DATA:
			verdict := nfnl.Attributes(value).Get(unix.NFTA_DATA_VERDICT)
			e.target = verdict.Text(unix.NFTA_VERDICT_CHAIN)
			if v := int32(verdict.Uint32(unix.NFTA_VERDICT_CODE)); v != unix.NFT_GOTO {
				e.target = fmt.Sprintf("verdict %d %s", v, e.target)
			}
		case unix.NFTA_SET_ELEM_USERDATA:
			e.comment = commentOf(value)
		case unix.NFTA_SET_ELEM_EXPR:
			if total, e.counts = parseCounter(value); !e.counts {
				unexpected += "with an expression "
			}
		default:
			if !allZero(value) {
				unexpected = fmt.Sprintf("%s with attribute %d ", unexpected, typ)
			}
		}
	}
	e.target += unexpected
	return e, total
}

func parseCounter(expression nfnl.Attributes) (total ruleset.Total, ok bool) {
	data := expression.Get(unix.NFTA_EXPR_DATA)
	total = ruleset.Total{Packets: data.Uint64(unix.NFTA_COUNTER_PACKETS), Bytes: data.Uint64(unix.NFTA_COUNTER_BYTES)}
	return total, expression.Text(unix.NFTA_EXPR_NAME) == "counter"
}
