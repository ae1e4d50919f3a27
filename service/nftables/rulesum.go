package nftables

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// The fingerprint in a rule's user data identifies the rule as it was created.
// Only its expressions tell what it does now: a program that replaces a rule may
// keep the user data. So both are compared, the expressions by a hash of what was
// sent and of what the kernel returns.
//
// The two differ in order and in attributes whose value is zero, which the
// kernel adds or leaves out depending on its release. The hash ignores both. A
// range that was sent with one end comes back with two.

// sumOfRule returns the hash of the expressions that a rule is sent as.
func sumOfRule(r ruleset.Rule) (uint64, error) {
	exprs, err := encodeRule(r)
	if err != nil {
		return 0, err
	}
	var sum digest
	for _, e := range exprs {
		item, err := expr.Marshal(byte(nftables.TableFamilyINet), e)
		if err == nil {
			item, err = specifyPorts(item)
		}
		if err != nil {
			return 0, fmt.Errorf("encoding rule %q: %w", r, err)
		}
		sum = sum.add(sumOfExpression(item))
	}
	return uint64(sum), nil
}

// sumOfExpressions returns the hash of a rule's expressions as the kernel lists
// them.
func sumOfExpressions(list []byte) uint64 {
	var sum digest
	for _, item := range nfnl.All(list) {
		sum = sum.add(sumOfExpression(item))
	}
	return uint64(sum)
}

func sumOfExpression(item nfnl.Attributes) uint64 {
	name, data := item.Text(unix.NFTA_EXPR_NAME), item.Get(unix.NFTA_EXPR_DATA)
	var sum uint64
	for typ, value := range nfnl.All(data) {
		if low, isEnd := lowerEnd(name, typ); isEnd && bytes.Equal(data.Get(low), value) {
			continue
		}
		sum += sumOfAttribute(typ, plainValue(name, typ, value), nestingDepth(name, typ))
	}
	return uint64(digest(hash(0, []byte(name))).add(sum))
}

// plainValue removes what the kernel adds to a value: the zero that ends a name,
// and NAT flags that only repeat which registers are set.
func plainValue(expression string, typ uint16, value []byte) []byte {
	switch {
	case expression == "objref" && typ == unix.NFTA_OBJREF_IMM_NAME:
		return bytes.TrimRight(value, "\x00")
	case expression == "nat" && typ == unix.NFTA_NAT_FLAGS && len(value) == 4:
		const implied = unix.NF_NAT_RANGE_MAP_IPS | unix.NF_NAT_RANGE_PROTO_SPECIFIED
		return binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(value)&^implied)
	}
	return value
}

// sumOfAttribute returns the hash of an attribute, 0 if its value is zero.
func sumOfAttribute(typ uint16, value []byte, depth int) uint64 {
	var sum uint64
	if depth > 0 {
		for inner, value := range nfnl.All(value) {
			below := 0
			if depth > 1 && inner == unix.NFTA_DATA_VERDICT {
				below = 1
			}
			sum += sumOfAttribute(inner, value, below)
		}
		if sum == 0 {
			return 0
		}
		return hash(typ, fmt.Appendf(nil, "%x", sum))
	}
	if allZero(value) {
		return 0
	}
	return hash(typ, value)
}

func allZero(value []byte) bool {
	return !slices.ContainsFunc(value, func(b byte) bool { return b != 0 })
}

func hash(typ uint16, value []byte) uint64 {
	h := fnv.New64a()
	h.Write([]byte{byte(typ >> 8), byte(typ)})
	h.Write(value)
	return h.Sum64()
}

// nestingDepth returns how deep attributes are nested in one of an expression: 2
// where it may be a verdict, which has attributes of its own.
func nestingDepth(expression string, typ uint16) int {
	switch {
	case expression == "immediate" && typ == unix.NFTA_IMMEDIATE_DATA:
		return 2
	case expression == "cmp" && typ == unix.NFTA_CMP_DATA,
		expression == "bitwise" && (typ == unix.NFTA_BITWISE_MASK || typ == unix.NFTA_BITWISE_XOR):
		return 1
	}
	return 0
}

// lowerEnd returns the attribute of the lower end for one of an upper end.
func lowerEnd(expression string, typ uint16) (low uint16, isEnd bool) {
	switch {
	case expression == "nat" && typ == unix.NFTA_NAT_REG_ADDR_MAX:
		return unix.NFTA_NAT_REG_ADDR_MIN, true
	case expression == "nat" && typ == unix.NFTA_NAT_REG_PROTO_MAX:
		return unix.NFTA_NAT_REG_PROTO_MIN, true
	case expression == "masq" && typ == unix.NFTA_MASQ_REG_PROTO_MAX:
		return unix.NFTA_MASQ_REG_PROTO_MIN, true
	}
	return 0, false
}

// maxSums bounds the cache of sums: those of 4,096 networks.
const maxSums = 1 << 16

// sums caches sumOfRule by fingerprint: encoding all rules for each comparison
// would take longer than reading them.
type sums map[uint64]uint64

func (s sums) of(r ruleset.Rule) (print, sum uint64, err error) {
	print = fingerprint(r)
	sum, known := s[print]
	if known {
		return print, sum, nil
	}
	if sum, err = sumOfRule(r); err != nil {
		return 0, 0, err
	}
	if len(s) >= maxSums {
		clear(s)
	}
	s[print] = sum
	return print, sum, nil
}

// digestOf returns the digest of a chain that has the rules.
func (p planner) digestOf(rules []ruleset.Rule) (digest, error) {
	var d digest
	for _, r := range rules {
		print, sum, err := p.sums.of(r)
		if err != nil {
			return 0, err
		}
		d = d.add(print)
		if !p.userDataOnly {
			d = d.add(sum)
		}
	}
	return d, nil
}
