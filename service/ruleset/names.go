package ruleset

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxEscaped bounds the part of a chain's name that comes from the network's
// name. The kernel takes 255 bytes (NFT_NAME_MAXLEN); a name of 128 bytes can
// escape to 384.
const maxEscaped = 96

// maxComment is the length to which comments are cut. The kernel's limit for a
// rule's user data is 256 bytes, shared with what nft itself puts there.
const maxComment = 120

// Names are the kernel names of what belongs to one network.
type Names struct {
	From, To, NAT            string // chains; From and To are counters too
	RejectedFrom, RejectedTo string // counters
}

// Counter returns the name of the counter that rules of the network's own chains have.
func (n Names) Counter(what Counts) string {
	return map[Counts]string{CountsFrom: n.From, CountsTo: n.To, CountsRejectedFrom: n.RejectedFrom, CountsRejectedTo: n.RejectedTo}[what]
}

// Earlier returns the name of the counter that holds what the network's elements and
// rules counted that are gone.
func (n Names) Earlier(what Counts) string {
	if name := n.Counter(what); name != "" {
		return name + "_earlier"
	}
	return ""
}

// NamesOf returns the names of a network's chains and counters. They differ if the
// networks' names differ, are legal nft identifiers and never keywords.
func NamesOf(network string) Names {
	p := "net_" + identifier(network)
	return Names{
		From: p + "_from", To: p + "_to", NAT: p + "_nat",
		RejectedFrom: p + "_rejected_from", RejectedTo: p + "_rejected_to",
	}
}

// identifier writes each byte outside [A-Za-z0-9] as _xx; long results are cut
// and made unique with a hash.
func identifier(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	if b.Len() <= maxEscaped {
		return b.String()
	}
	sum := sha256.Sum256([]byte(name))
	// No escaped name contains "_h": the hash cannot meet another's escape.
	return b.String()[:maxEscaped-34] + "_h" + hex.EncodeToString(sum[:16])
}

// comment cuts a comment at maxComment bytes without splitting a character.
func comment(format string, args ...any) string {
	s := fmt.Sprintf(format, args...)
	if len(s) <= maxComment {
		return s
	}
	s = s[:maxComment]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}
