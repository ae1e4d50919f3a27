package nftables

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"iter"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

const (
	// maxComment leaves room for the fingerprint in the 256 bytes that the
	// kernel allows (NFT_USERDATA_MAXLEN), and for the length in one byte.
	maxComment = 200
	// fingerprintType is the type of our own triple in a rule's user data.
	// nft skips types that it does not know, and drops them when it edits.
	fingerprintType userdata.Type = 0xf1
	// encoding must be changed whenever the same rule yields other expressions,
	// so that a newer version of the service replaces rules of an older one.
	encoding = "2"
)

// fingerprint returns a hash of a rule and of the version of its encoding.
func fingerprint(r ruleset.Rule) uint64 {
	h := fnv.New64a()
	h.Write([]byte(encoding))
	h.Write([]byte(r.String()))
	return h.Sum64()
}

// ruleData returns a rule's user data: the comment for nft, then the fingerprint
// for the service.
func ruleData(r ruleset.Rule) []byte {
	var out []byte
	if r.Comment != "" {
		out = userdata.AppendString(out, userdata.TypeComment, cut(r.Comment))
	}
	return userdata.Append(out, fingerprintType, binary.BigEndian.AppendUint64(nil, fingerprint(r)))
}

// fingerprintOf returns the fingerprint in a rule's user data; ok is false for
// rules that are not the service's, or no longer.
func fingerprintOf(data []byte) (sum uint64, ok bool) {
	for typ, value := range userData(data) {
		if typ == byte(fingerprintType) && len(value) == 8 {
			return binary.BigEndian.Uint64(value), true
		}
	}
	return 0, false
}

// commentOf returns the comment in a rule's or an element's user data.
func commentOf(data []byte) string {
	for typ, value := range userData(data) {
		if typ == byte(userdata.TypeComment) {
			return nfnl.Text(value)
		}
	}
	return ""
}

// userData yields the type, length, value triples in the user data of rules and
// elements. Any program may have written them, so lengths are checked.
func userData(data []byte) iter.Seq2[byte, []byte] {
	return func(yield func(byte, []byte) bool) {
		for len(data) >= 2 && 2+int(data[1]) <= len(data) {
			n := 2 + int(data[1])
			if !yield(data[0], data[2:n:n]) {
				return
			}
			data = data[n:]
		}
	}
}

func cut(comment string) string { return comment[:min(len(comment), maxComment)] }

// digest is a hash of hashes that depends on their order: of a chain's rules, or
// of a rule's expressions.
type digest uint64

func (d digest) add(sum uint64) digest {
	const prime = 0x100000001b3 // FNV-1a, by whole words
	return (d ^ digest(sum)) * prime
}

// elementKey identifies an element: a key is unique in its set.
type elementKey struct{ set, key string }

// content is what an element holds beside its key, but for what it has counted.
type content struct {
	target, comment string
	counts          bool // packets and bytes
}

// element is one element as the kernel holds it.
type element struct {
	elementKey
	content
}

func encodeElement(e element) nftables.SetElement {
	out := nftables.SetElement{Key: []byte(e.key), Comment: cut(e.comment)}
	if e.counts {
		out.Counter = &expr.Counter{}
	}
	if e.target != "" {
		out.VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: e.target}
	}
	return out
}

// encodeSet returns a set for the library. Sets are named and never constant:
// only then does nft print names (key byte order), and the size keeps the
// kernel's hash table from growing under traffic.
func encodeSet(t *nftables.Table, s ruleset.Set) (*nftables.Set, error) {
	typ, err := setType(s)
	if err != nil {
		return nil, err
	}
	out := &nftables.Set{
		Table: t, Name: s.Name, KeyType: typ, KeyByteOrder: binaryutil.NativeEndian,
		Size: uint32(s.Size), Concatenation: len(s.Key) > 1,
	}
	if s.Verdicts {
		out.IsMap, out.DataType = true, nftables.TypeVerdict
	}
	return out, nil
}

func encodeChain(t *nftables.Table, c ruleset.Chain) (*nftables.Chain, error) {
	out := &nftables.Chain{Table: t, Name: c.Name}
	if c.Hook == (ruleset.Hook{}) {
		return out, nil
	}
	hook, err := hookNumber(c.Hook.Hook)
	if err != nil {
		return nil, fmt.Errorf("encoding chain %s: %w", c.Name, err)
	}
	policy := nftables.ChainPolicyAccept
	out.Type = nftables.ChainType(c.Hook.Type)
	out.Hooknum = hook
	out.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(c.Hook.Priority))
	out.Policy = &policy
	return out, nil
}

func hookNumber(name string) (*nftables.ChainHook, error) {
	switch name {
	case "forward":
		return nftables.ChainHookForward, nil
	case "postrouting":
		return nftables.ChainHookPostrouting, nil
	}
	return nil, fmt.Errorf("unknown hook %q", name)
}
