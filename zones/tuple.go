package zones

import "github.com/godbus/dbus/v5"

// zoneTuple is a zone on the bus before firewalld 0.9. The order of the fields
// matters.
type zoneTuple struct {
	Version, Short, Description string
	Unused                      bool
	Target                      string
	Services                    []string
	Ports                       []portTuple
	ICMPBlocks                  []string
	Masquerade                  bool
	ForwardPorts                []forwardTuple
	Interfaces, Sources         []string
	RichRules, Protocols        []string
	SourcePorts                 []portTuple
	ICMPBlockInversion          bool
}

type portTuple struct{ Port, Protocol string }

type forwardTuple struct{ Port, Protocol, ToPort, ToAddress string }

func (t zoneTuple) variants() map[string]dbus.Variant {
	ports := func(in []portTuple) [][]any {
		var out [][]any
		for _, p := range in {
			out = append(out, []any{p.Port, p.Protocol})
		}
		return out
	}
	var forwards [][]any
	for _, f := range t.ForwardPorts {
		forwards = append(forwards, []any{f.Port, f.Protocol, f.ToPort, f.ToAddress})
	}
	values := map[string]any{
		"version": t.Version, "short": t.Short, "description": t.Description, "target": t.Target,
		"services": t.Services, "ports": ports(t.Ports), "icmp_blocks": t.ICMPBlocks,
		"masquerade": t.Masquerade, "forward_ports": forwards, "interfaces": t.Interfaces,
		"sources": t.Sources, "rules_str": t.RichRules, "protocols": t.Protocols,
		"source_ports": ports(t.SourcePorts), "icmp_block_inversion": t.ICMPBlockInversion,
	}
	raw := make(map[string]dbus.Variant, len(values))
	for key, v := range values {
		raw[key] = dbus.MakeVariant(v)
	}
	return raw
}

// tupleOf returns raw as a tuple, with only the settings that our own zones use,
// and the interfaces that a zone of ours may have got before it was removed.
func tupleOf(raw map[string]dbus.Variant) zoneTuple {
	text := func(key string) string { s, _ := raw[key].Value().(string); return s }
	list := func(key string) []string { l, _ := raw[key].Value().([]string); return l }
	return zoneTuple{
		Version: text("version"), Short: text("short"), Description: text("description"),
		Target: text("target"), Services: list("services"), Interfaces: list("interfaces"),
		RichRules: list("rules_str"), Protocols: list("protocols"),
	}
}
