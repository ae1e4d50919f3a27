package ruleset

import (
	"net/netip"
	"strings"
)

// The lengths of subnets that are looked up in sets. Networks that have others have
// chains of their own, since each length takes look-ups of its own.
const (
	bits4 = 24
	bits6 = 64
)

// Names of sets and maps, to which an end is added that says what the bridge is
// looked up by: _id for its interface index, _name for its name. The two halves have
// the same content.
const (
	setGuests     = "guests"      // bridges of networks
	setSameBridge = "same_bridge" // pairs of the same bridge

	// What subnets of a network may do; 4 or 6 stands before the end.
	setMayLeave     = "may_leave"    // guests that reach other networks and the outside
	setReplies      = "replies"      // guests that replies reach
	setAnyone       = "anyone"       // guests that anyone reaches
	setIsolated     = "isolated"     // guests that reach nobody
	setTranslated   = "translated"   // guests that go out under another address
	setMasqueraded  = "masqueraded"  // guests that go out under the host's
	setUntranslated = "untranslated" // pairs of subnets between which it is not

	setFamilies    = "families"     // bridges and families of which they have subnets
	setRefusedFrom = "refused_from" // what bridges' guests were refused
	setRefusedTo   = "refused_to"   // what was refused to reach them

	// Chains of networks' own.
	mapFrom = "from"
	mapTo   = "to"
	mapNAT  = "nat"
)

// SetBystandersID holds the interfaces that no network can have, by index: what comes
// from or goes to one of them has only one side that decides. No verdict depends on
// it, only how many rules a packet meets.
const SetBystandersID = "bystanders_id"

// Declared sizes: tables of that many elements never grow under traffic, are found
// faster, and are allocated in full, 32 bytes for each element. Others grow.
const (
	mostSubnets    = 2    // of a family, of a network
	networksSize   = 8192 // of the most networks there may be
	MostBystanders = 1024 // elements of SetBystandersID
)

// half is one of the two ways to look bridges up.
type half struct {
	end     string
	key     KeyType
	in, out Field
}

func halves() []half {
	return []half{
		{"_id", KeyIfIndex, InIndex, OutIndex},
		{"_name", KeyIfName, InName, OutName},
	}
}

// family is what differs between IPv4 and IPv6 in sets.
type family struct {
	digit               string
	key                 KeyType
	source, destination Field
}

func families() []family {
	return []family{
		{"4", KeyIPv4, Source4, Destination4},
		{"6", KeyIPv6, Source6, Destination6},
	}
}

func familyOf(p netip.Prefix) family {
	if p.Addr().Is4() {
		return families()[0]
	}
	return families()[1]
}

// inSets reports whether a subnet can be looked up in sets.
func inSets(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return p.Bits() == bits4
	}
	return p.Bits() == bits6
}

// Governs reports whether an element makes a bridge a network's.
func (e Element) Governs() bool { return strings.HasPrefix(e.Set, setGuests) }

// Translates reports whether a set or map says what is translated: postrouting looks
// at it, later than at all others.
func Translates(set string) bool {
	for _, name := range []string{mapNAT, setMasqueraded, setUntranslated} {
		if strings.HasPrefix(set, name) {
			return true
		}
	}
	return false
}

func baseSets() []Set {
	sets := []Set{{Name: SetBystandersID, Key: []KeyType{KeyIfIndex}, Size: MostBystanders}}
	for _, h := range halves() {
		sets = append(sets, h.sets()...)
	}
	return sets
}

// sets returns the sets of one half. Those that most packets meet have a size.
func (h half) sets() []Set {
	hot := 0
	if h.key == KeyIfIndex {
		hot = networksSize
	}
	sets := []Set{
		{Name: setGuests + h.end, Key: []KeyType{h.key}, Size: hot},
		{Name: setSameBridge + h.end, Key: []KeyType{h.key, h.key}},
		{Name: setFamilies + h.end, Key: []KeyType{h.key, KeyFamily}},
		{Name: setRefusedFrom + h.end, Key: []KeyType{h.key}, Counts: CountsRejectedFrom},
		{Name: setRefusedTo + h.end, Key: []KeyType{h.key}, Counts: CountsRejectedTo},
	}
	for _, f := range families() {
		subnet := []KeyType{h.key, f.key}
		end := f.digit + h.end
		sets = append(sets,
			Set{Name: setMayLeave + end, Key: subnet, Counts: CountsFrom, Size: hot},
			Set{Name: setReplies + end, Key: subnet, Counts: CountsTo, Size: hot},
			Set{Name: setAnyone + end, Key: subnet, Counts: CountsTo},
			Set{Name: setIsolated + end, Key: subnet},
			Set{Name: setTranslated + end, Key: subnet},
			Set{Name: setMasqueraded + end, Key: subnet},
			Set{Name: setUntranslated + end, Key: []KeyType{h.key, f.key, f.key}},
		)
	}
	for _, m := range []string{mapFrom, mapTo, mapNAT} {
		sets = append(sets, Set{Name: m + h.end, Key: []KeyType{h.key}, Verdicts: true})
	}
	return sets
}
