package host

import (
	"encoding/binary"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// action is a tc action. The library's own encoding reads two bytes beyond what
// it encodes, since it takes struct tc_gen to be 22 bytes long and it has 20: that
// sends the kernel some of the service's memory, which may be written concurrently.
type action struct {
	kind    string
	parms   int    // the attribute that has the parameters
	control int32  // what happens to the packet
	own     []byte // what follows struct tc_gen in the parameters
}

// csum fills in the checksums of the IPv4 header and of UDP (struct tc_csum).
func csum() action {
	flags := uint32(netlink.TCA_CSUM_UPDATE_FLAG_IPV4HDR | netlink.TCA_CSUM_UPDATE_FLAG_UDP)
	return action{
		kind: "csum", parms: nl.TCA_CSUM_PARMS, control: int32(netlink.TC_ACT_OK),
		own: binary.NativeEndian.AppendUint32(nil, flags),
	}
}

// encode adds the attributes of the action; index 0 lets the kernel number it.
func (a action) encode(to *nl.RtAttr, index uint32) {
	var parms []byte // struct tc_gen: index, capab, action, refcnt, bindcnt
	for _, v := range []uint32{index, 0, uint32(a.control), 0, 0} {
		parms = binary.NativeEndian.AppendUint32(parms, v)
	}
	to.AddRtAttr(nl.TCA_ACT_KIND, nl.ZeroTerminated(a.kind))
	to.AddRtAttr(nl.TCA_ACT_OPTIONS, nil).AddRtAttr(a.parms, append(parms, a.own...))
}

// addFilter does tc filter add of u32 match ip dport 68 ffff with one action.
func addFilter(link int, parent uint32, node int, a action) error {
	const offsetOfPorts, bootpc = 20, 68 // of an IPv4 header without options
	key := nl.TcU32Key{Off: offsetOfPorts, Mask: bigEndian32(0xffff), Val: bigEndian32(bootpc)}
	sel := nl.TcU32Sel{Nkeys: 1, Flags: netlink.TC_U32_TERMINAL, Keys: []nl.TcU32Key{key}}
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_U32_SEL, sel.Serialize())
	a.encode(options.AddRtAttr(nl.TCA_U32_ACT, nil).AddRtAttr(1, nil), 0)
	req := nl.NewNetlinkRequest(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(filterHeader(link, parent, uint32(node)))
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("u32")))
	req.AddData(options)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// deleteFilter does tc filter del of our filter, by its handle, or with 0 of all that
// have our priority.
func deleteFilter(link int, parent, handle uint32) error {
	req := nl.NewNetlinkRequest(unix.RTM_DELTFILTER, unix.NLM_F_ACK)
	req.AddData(filterHeader(link, parent, handle))
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("u32")))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func filterHeader(link int, parent, handle uint32) *nl.TcMsg {
	return &nl.TcMsg{
		Family: nl.FAMILY_ALL, Ifindex: int32(link), Handle: handle, Parent: parent,
		Info: netlink.MakeHandle(filterPriority, nl.Swap16(unix.ETH_P_IP)),
	}
}

// bigEndian32 returns a number as the selector of a u32 filter has it.
func bigEndian32(v uint32) uint32 {
	return binary.NativeEndian.Uint32(binary.BigEndian.AppendUint32(nil, v))
}
