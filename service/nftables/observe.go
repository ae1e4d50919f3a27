package nftables

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/attribute"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// tableOwner is NFTA_TABLE_OWNER, which x/sys does not have.
const tableOwner = 7

// observed is the table as the kernel holds it.
type observed struct {
	exists   bool
	flags    uint32
	owner    uint32 // netlink port, 0 for nobody
	chains   map[string]*observedChain
	sets     map[string]observedSet
	elements map[place]content
	counters map[string]counter
	loose    bool

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
	rules    digest // of what they say they are and of what they do
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
	err := r.read(ctx, func(s session) error {
		o = &observed{
			chains: make(map[string]*observedChain), sets: make(map[string]observedSet),
			elements: make(map[place]content), counters: make(map[string]counter),
			loose: r.loose,
		}
		return s.fill(o)
	})
	if err != nil {
		return nil, fmt.Errorf("reading table %s: %w", ruleset.TableName, err)
	}
	return o, nil
}

func (s session) fill(o *observed) error {
	err := s.get(unix.NFT_MSG_GETTABLE, unix.NFPROTO_INET, []netlink.Attribute{named(unix.NFTA_TABLE_NAME, ruleset.TableName)}, o.table)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	// The kernel gives chains of all tables of the family.
	if err := s.dump(unix.NFT_MSG_GETCHAIN, nil, o.chain); err != nil {
		return err
	}
	inTable := []netlink.Attribute{named(unix.NFTA_RULE_TABLE, ruleset.TableName)}
	if err := s.dump(unix.NFT_MSG_GETRULE, inTable, o.rule); err != nil {
		return err
	}
	if err := s.dump(unix.NFT_MSG_GETSET, inTable, o.set); err != nil {
		return err
	}
	for name := range o.sets {
		attrs := []netlink.Attribute{named(unix.NFTA_SET_ELEM_LIST_TABLE, ruleset.TableName), named(unix.NFTA_SET_ELEM_LIST_SET, name)}
		if err := s.dump(unix.NFT_MSG_GETSETELEM, attrs, func(body []byte) { o.elementsOf(name, body) }); err != nil {
			return err
		}
	}
	if err := s.dump(unix.NFT_MSG_GETFLOWTABLE, inTable, o.flowtable); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return s.dump(unix.NFT_MSG_GETOBJ, inTable, o.object)
}

// asleep reports whether the table is there and dormant: none of its chains is
// asked then.
func (o *observed) asleep() bool { return o.exists && o.flags&unix.NFT_TABLE_F_DORMANT != 0 }

// judged reports whether a base chain that is not the service's, which every
// network's packets meet, is in the table.
func (o *observed) judged(base ruleset.Skeleton) bool {
	strangers := 0
	for _, c := range o.chains {
		if c.base {
			strangers++
		}
	}
	for _, c := range base.Chains {
		if have := o.chains[c.Name]; have != nil && have.base {
			strangers--
		}
	}
	return strangers > 0
}

func (o *observed) table(body []byte) {
	o.exists = true
	flags, _ := find(body, unix.NFTA_TABLE_FLAGS)
	owner, _ := find(body, tableOwner)
	o.flags, o.owner = number32(flags), number32(owner)
}

func (o *observed) chain(body []byte) {
	if findText(body, unix.NFTA_CHAIN_TABLE) != ruleset.TableName {
		return
	}
	c := &observedChain{typ: findText(body, unix.NFTA_CHAIN_TYPE)}
	if hook, ok := find(body, unix.NFTA_CHAIN_HOOK); ok {
		number, _ := find(hook, unix.NFTA_HOOK_HOOKNUM)
		priority, _ := find(hook, unix.NFTA_HOOK_PRIORITY)
		policy, _ := find(body, unix.NFTA_CHAIN_POLICY)
		c.base, c.hook, c.priority, c.policy = true, number32(number), int32(number32(priority)), number32(policy)
	}
	o.chains[findText(body, unix.NFTA_CHAIN_NAME)] = c
}

func (o *observed) rule(body []byte) {
	c := o.chains[findText(body, unix.NFTA_RULE_CHAIN)]
	if c == nil || findText(body, unix.NFTA_RULE_TABLE) != ruleset.TableName {
		return
	}
	data, _ := find(body, unix.NFTA_RULE_USERDATA)
	sum, ok := fingerprintOf(data)
	expressions, _ := find(body, unix.NFTA_RULE_EXPRESSIONS)
	c.foreign = c.foreign || !ok
	c.rules = c.rules.add(sum)
	if !o.loose {
		c.rules = c.rules.add(sumOfExpressions(expressions))
	}
}

func (o *observed) object(body []byte) {
	typ, _ := find(body, unix.NFTA_OBJ_TYPE)
	name, kind := findText(body, unix.NFTA_OBJ_NAME), number32(typ)
	switch {
	case findText(body, unix.NFTA_OBJ_TABLE) != ruleset.TableName:
	case kind != objectCounter:
		o.objects = append(o.objects, object{name, kind})
	default:
		o.counters[name] = counterOf(body)
	}
}

func (o *observed) flowtable(body []byte) {
	const table, name = 1, 2 // NFTA_FLOWTABLE_TABLE, NFTA_FLOWTABLE_NAME
	if findText(body, table) == ruleset.TableName {
		o.flowtables = append(o.flowtables, findText(body, name))
	}
}

// set notes named sets; anonymous ones go with their rules.
func (o *observed) set(body []byte) {
	value := func(typ uint16) uint32 {
		data, _ := find(body, typ)
		return number32(data)
	}
	s := observedSet{value(unix.NFTA_SET_FLAGS), value(unix.NFTA_SET_KEY_TYPE), value(unix.NFTA_SET_KEY_LEN), value(unix.NFTA_SET_DATA_TYPE)}
	if findText(body, unix.NFTA_SET_TABLE) == ruleset.TableName && s.flags&unix.NFT_SET_ANONYMOUS == 0 {
		o.sets[findText(body, unix.NFTA_SET_NAME)] = s
	}
}

func (o *observed) elementsOf(set string, body []byte) {
	list, _ := find(body, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	for _, item := range attribute.All(list) {
		e := parseElement(item)
		if e.key == "" {
			o.catchall = true
			continue
		}
		o.elements[place{set, e.key}] = e.content
	}
}

// parseElement reads an element. A verdict that is no goto, and what the
// service's own elements never have (a time-out, expressions of their own), is
// named in a way that no chain is.
func parseElement(item []byte) element {
	var e element
	odd := ""
	for typ, value := range attribute.All(item) {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			key, _ := find(value, unix.NFTA_DATA_VALUE)
			e.key = string(key)
		case unix.NFTA_SET_ELEM_DATA:
			verdict, _ := find(value, unix.NFTA_DATA_VERDICT)
			code, _ := find(verdict, unix.NFTA_VERDICT_CODE)
			e.target = findText(verdict, unix.NFTA_VERDICT_CHAIN)
			if v := int32(number32(code)); v != unix.NFT_GOTO {
				e.target = fmt.Sprintf("verdict %d %s", v, e.target)
			}
		case unix.NFTA_SET_ELEM_USERDATA:
			e.comment = commentOf(value)
		default:
			if !zero(value) {
				odd = fmt.Sprintf("%s with attribute %d ", odd, typ)
			}
		}
	}
	e.target += odd
	return e
}
