package nftables

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// answer is one confirmation or refusal of a message.
type answer struct {
	sequence uint32
	errno    unix.Errno
	text     string // the kernel's message, mostly none
	offset   int    // of the attribute at fault in the message, 0 for none
}

// parseAnswers returns the confirmations and refusals in one datagram.
func parseAnswers(data []byte) []answer {
	var out []answer
	for len(data) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(data))
		if size < unix.NLMSG_HDRLEN || size > len(data) {
			break
		}
		if binary.NativeEndian.Uint16(data[4:]) == unix.NLMSG_ERROR && size >= 2*unix.NLMSG_HDRLEN+4 {
			out = append(out, parseAnswer(data[:size]))
		}
		data = data[min(align(size), len(data)):]
	}
	return out
}

// parseAnswer reads a struct nlmsgerr: errno, the header of the message that
// it answers, that message's payload unless capped, and attributes.
func parseAnswer(data []byte) answer {
	flags := netlink.HeaderFlags(binary.NativeEndian.Uint16(data[6:]))
	body := data[unix.NLMSG_HDRLEN:]
	a := answer{
		errno:    unix.Errno(-int32(binary.NativeEndian.Uint32(body))),
		sequence: binary.NativeEndian.Uint32(body[4+8:]),
	}
	skip := 4 + unix.NLMSG_HDRLEN
	if flags&netlink.Capped == 0 && a.errno != 0 {
		skip = 4 + align(int(binary.NativeEndian.Uint32(body[4:])))
	}
	if flags&netlink.AcknowledgeTLVs == 0 || skip > len(body) {
		return a
	}
	for typ, value := range nfnl.All(body[skip:]) {
		switch {
		case typ == unix.NLMSGERR_ATTR_MSG:
			a.text = nfnl.Text(value)
		case typ == unix.NLMSGERR_ATTR_OFFS && len(value) >= 4:
			a.offset = int(binary.NativeEndian.Uint32(value))
		}
	}
	return a
}

// refusal returns an error that names the object that the kernel refused, and why.
func refusal(sent []netlink.Message, a answer) error {
	subject := "the transaction"
	for _, m := range sent {
		if m.Header.Sequence == a.sequence {
			subject = describe(m)
			if detail := describeFault(m, a.offset); detail != "" {
				subject += ", " + detail
			}
			break
		}
	}
	hint := ""
	if a.text != "" {
		hint = " (" + a.text + ")"
	}
	if a.errno == unix.EPERM {
		hint += ": the table belongs to another process, or CAP_NET_ADMIN is missing"
	}
	return fmt.Errorf("the kernel refused %s: %w%s", subject, a.errno, hint)
}

// messageName is what a type of message does, in words, and the attribute that
// names its object (NFTA_..._NAME; the enums of nf_tables.h differ by type).
type messageName struct {
	words     string
	attribute uint16
}

func nameOf(t netlink.HeaderType) messageName {
	switch t {
	case nfnl.Type(unix.NFT_MSG_NEWTABLE):
		return messageName{"adding table", unix.NFTA_TABLE_NAME}
	case nfnl.Type(unix.NFT_MSG_DELTABLE):
		return messageName{"deleting table", unix.NFTA_TABLE_NAME}
	case nfnl.Type(unix.NFT_MSG_NEWCHAIN):
		return messageName{"adding chain", unix.NFTA_CHAIN_NAME}
	case nfnl.Type(unix.NFT_MSG_DELCHAIN):
		return messageName{"deleting chain", unix.NFTA_CHAIN_NAME}
	case nfnl.Type(unix.NFT_MSG_NEWRULE):
		return messageName{"adding a rule to chain", unix.NFTA_RULE_CHAIN}
	case nfnl.Type(unix.NFT_MSG_DELRULE):
		return messageName{"emptying chain", unix.NFTA_RULE_CHAIN}
	case nfnl.Type(unix.NFT_MSG_NEWSET):
		return messageName{"adding set", unix.NFTA_SET_NAME}
	case nfnl.Type(unix.NFT_MSG_DELSET):
		return messageName{"deleting set", unix.NFTA_SET_NAME}
	case nfnl.Type(unix.NFT_MSG_NEWSETELEM):
		return messageName{"adding elements to set", unix.NFTA_SET_ELEM_LIST_SET}
	case nfnl.Type(unix.NFT_MSG_DELSETELEM):
		return messageName{"deleting elements of set", unix.NFTA_SET_ELEM_LIST_SET}
	case nfnl.Type(unix.NFT_MSG_NEWOBJ):
		return messageName{"adding counter", unix.NFTA_OBJ_NAME}
	case nfnl.Type(unix.NFT_MSG_DELOBJ):
		return messageName{"deleting counter", unix.NFTA_OBJ_NAME}
	case nfnl.Type(unix.NFT_MSG_GETOBJ_RESET):
		return messageName{"resetting counter", unix.NFTA_OBJ_NAME}
	}
	return messageName{fmt.Sprintf("message %d", t), 0}
}

// describe returns what a message does to which object, with a rule's comment.
func describe(m netlink.Message) string {
	n := nameOf(m.Header.Type)
	if len(m.Data) < nfnl.HeaderLen || n.attribute == 0 {
		return n.words
	}
	body := nfnl.Body(m.Data)
	out := fmt.Sprintf("%s %s", n.words, body.Text(n.attribute))
	if m.Header.Type == nfnl.Type(unix.NFT_MSG_NEWRULE) {
		if c := commentOf(body.Get(unix.NFTA_RULE_USERDATA)); c != "" {
			out += fmt.Sprintf(" (%q)", c)
		}
	}
	return out
}

// describeFault returns the name of the element or expression at the offset that
// the kernel reported, or "".
func describeFault(m netlink.Message, offset int) string {
	var list uint16
	switch m.Header.Type {
	case nfnl.Type(unix.NFT_MSG_NEWSETELEM), nfnl.Type(unix.NFT_MSG_DELSETELEM):
		list = unix.NFTA_SET_ELEM_LIST_ELEMENTS
	case nfnl.Type(unix.NFT_MSG_NEWRULE):
		list = unix.NFTA_RULE_EXPRESSIONS
	default:
		return ""
	}
	within := func(part []byte) bool {
		start := unix.NLMSG_HDRLEN + cap(m.Data) - cap(part) // both slice the same array
		return offset >= start-unix.SizeofNlAttr && offset < start+len(part)
	}
	if offset == 0 {
		return ""
	}
	for _, item := range nfnl.All(nfnl.Body(m.Data).Get(list)) {
		if !within(item) {
			continue
		}
		if list == unix.NFTA_RULE_EXPRESSIONS {
			return "expression " + nfnl.Attributes(item).Text(unix.NFTA_EXPR_NAME)
		}
		return "element " + describeElement(nfnl.Body(m.Data).Text(unix.NFTA_SET_ELEM_LIST_SET), item)
	}
	return ""
}

// describeElement returns an element's key and verdict.
func describeElement(name string, item []byte) string {
	e, _ := parseElement(item)
	out := ""
	for _, s := range ruleset.Base(ruleset.Interface{}).Sets {
		if s.Name == name {
			out = keyText(s, e.key)
		}
	}
	if e.target != "" {
		out += " : goto " + e.target
	}
	return out
}
