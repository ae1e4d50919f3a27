package nftables

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/nfnl"
)

// specifyMasqueradePorts adds NF_NAT_RANGE_PROTO_SPECIFIED to masquerade
// expressions that carry ports. The library sends the registers without it:
// such a rule is listed as if it were right, and the kernel ignores its ports.
func specifyMasqueradePorts(m netlink.Message) ([]byte, error) {
	if m.Header.Type != nfnl.Type(unix.NFT_MSG_NEWRULE) || !bytes.Contains(m.Data, []byte("masq\x00")) {
		return m.Data, nil
	}
	body, err := rewrite(nfnl.Body(m.Data), unix.NFTA_RULE_EXPRESSIONS, func(list []byte) ([]byte, error) {
		return rewrite(list, unix.NFTA_LIST_ELEM, specifyPorts)
	})
	if err != nil {
		return nil, fmt.Errorf("completing a masquerade rule: %w", err)
	}
	return append(m.Data[:nfnl.HeaderLen:nfnl.HeaderLen], body...), nil
}

// specifyPorts adds the flag to an expression if it is a masquerade.
func specifyPorts(expression []byte) ([]byte, error) {
	if nfnl.Attributes(expression).Text(unix.NFTA_EXPR_NAME) != "masq" {
		return expression, nil
	}
	return rewrite(expression, unix.NFTA_EXPR_DATA, func(data []byte) ([]byte, error) {
		attrs := nfnl.Attributes(data)
		if !attrs.Has(unix.NFTA_MASQ_REG_PROTO_MIN) || attrs.Has(unix.NFTA_MASQ_FLAGS) {
			return data, nil
		}
		flag, err := netlink.MarshalAttributes([]netlink.Attribute{{
			Type: unix.NFTA_MASQ_FLAGS,
			Data: binary.BigEndian.AppendUint32(nil, unix.NF_NAT_RANGE_PROTO_SPECIFIED),
		}})
		return append(data[:len(data):len(data)], flag...), err
	})
}

// rewrite returns attributes with change applied to the data of each of the type.
func rewrite(data []byte, typ uint16, change func([]byte) ([]byte, error)) ([]byte, error) {
	attrs, err := netlink.UnmarshalAttributes(data)
	if err != nil {
		return nil, err
	}
	for i := range attrs {
		attrs[i].Length = 0
		if attrs[i].Type&^nfnl.TypeFlags != typ {
			continue
		}
		if attrs[i].Data, err = change(attrs[i].Data); err != nil {
			return nil, err
		}
	}
	return netlink.MarshalAttributes(attrs)
}
