package nftables

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// message returns one netlink message with native header fields.
func message(typ, flags uint16, sequence uint32, body []byte) []byte {
	out := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	out = binary.NativeEndian.AppendUint16(out, typ)
	out = binary.NativeEndian.AppendUint16(out, flags)
	out = binary.NativeEndian.AppendUint32(out, sequence)
	out = binary.NativeEndian.AppendUint32(out, 0)
	out = append(out, body...)
	return append(out, make([]byte, align(len(out))-len(out))...)
}

func attributeBytes(typ uint16, data []byte) []byte {
	out := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofNlAttr+len(data)))
	out = binary.NativeEndian.AppendUint16(out, typ)
	out = append(out, data...)
	return append(out, make([]byte, align(len(out))-len(out))...)
}

// refusalOf returns a kernel's answer to message number sequence.
func refusalOf(sequence uint32, errno unix.Errno, capped bool, attributes ...byte) []byte {
	flags := uint16(netlink.AcknowledgeTLVs)
	request := message(0xa06, 0, sequence, []byte{1, 2, 3, 4})
	if capped {
		flags |= uint16(netlink.Capped)
		request = request[:unix.NLMSG_HDRLEN]
	}
	body := binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))
	return message(unix.NLMSG_ERROR, flags, sequence, append(append(body, request...), attributes...))
}

func TestAnswers(t *testing.T) {
	text := attributeBytes(unix.NLMSGERR_ATTR_MSG, []byte("no\x00"))
	offset := attributeBytes(unix.NLMSGERR_ATTR_OFFS, binary.NativeEndian.AppendUint32(nil, 24))
	for _, capped := range []bool{true, false} {
		data := refusalOf(7, unix.ENOENT, capped, append(text, offset...)...)
		data = append(data, refusalOf(8, 0, true)...)
		got := parseAnswers(data)
		if len(got) != 2 || got[0] != (answer{7, unix.ENOENT, "no", 24}) || got[1] != (answer{sequence: 8}) {
			t.Errorf("capped %v: %+v", capped, got)
		}
	}
}

func TestRefusalsExplainPermissions(t *testing.T) {
	m := netlink.Message{
		Header: netlink.Header{Type: nfnl.Type(unix.NFT_MSG_NEWTABLE), Sequence: 3},
		Data:   append([]byte{1, 0, 0, 0}, attributeBytes(unix.NFTA_TABLE_NAME, []byte("x\x00"))...),
	}
	got := refusal([]netlink.Message{m}, answer{sequence: 3, errno: unix.EPERM}).Error()
	for _, want := range []string{"adding table x", "operation not permitted", "belongs to another process"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q does not say %q", got, want)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(refusalOf(1, unix.ENOENT, true, attributeBytes(unix.NLMSGERR_ATTR_MSG, []byte("no\x00"))...))
	f.Add(refusalOf(1, unix.EPERM, false))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, a := range parseAnswers(data) {
			sent := []netlink.Message{{Header: netlink.Header{Type: nfnl.Type(unix.NFT_MSG_NEWSETELEM), Sequence: a.sequence}, Data: data}}
			if refusal(sent, a) == nil {
				t.Error("a refusal is no error")
			}
		}
	})
}

// FuzzObserved feeds what a dump might hold: foreign programs write user data,
// and newer kernels attributes, that the service has never seen.
func FuzzObserved(f *testing.F) {
	comment := attributeBytes(unix.NFTA_RULE_USERDATA, []byte{0, 3, 'h', 'i', 0})
	f.Add(append(attributeBytes(unix.NFTA_RULE_CHAIN, []byte("c\x00")), comment...))
	f.Add(attributeBytes(unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, attributeBytes(1, attributeBytes(unix.NFTA_SET_ELEM_KEY, nil))))
	f.Add([]byte{255, 255, 0, 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		o := &observed{chains: map[string]*observedChain{}, sets: map[string]observedSet{}, elements: map[elementKey]content{}, totals: map[elementKey]ruleset.Total{}}
		o.table(body)
		o.chain(body)
		o.rule(body)
		o.set(body)
		o.elementsOf("s", body)
		for at := range o.elements {
			for _, s := range ruleset.Base(ruleset.Interface{}).Sets {
				keyText(s, at.key)
			}
		}
		sum, ok := fingerprintOf(body)
		if sum != 0 && !ok {
			t.Error("a fingerprint that is none")
		}
		commentOf(body)
	})
}
