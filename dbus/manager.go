package dbus

import (
	"context"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

func (ex *exports) addNetwork(c *call) (work, error) {
	settings, err := settingsOf(argument[map[string]godbus.Variant](c, 1))
	if err != nil {
		return work{}, err
	}
	o, err := changeOptions(argument[map[string]godbus.Variant](c, 2), "Persistent", "Replace")
	if err != nil {
		return work{}, err
	}
	name, err := text("name", argument[string](c, 0))
	if err != nil {
		return work{}, err
	}
	n, err := network.FromSettings(name, settings)
	if err != nil {
		return work{}, err
	}
	return ex.add(c, n, o), nil
}

func (ex *exports) addNetworkFromXML(c *call) (work, error) {
	doc := argument[string](c, 0)
	o, err := changeOptions(argument[map[string]godbus.Variant](c, 1), "Persistent", "Replace")
	if err != nil {
		return work{}, err
	}
	n, err := networkFromXML(doc)
	if err != nil {
		return work{}, err
	}
	o.Source = []byte(doc)
	return ex.add(c, n, o), nil
}

func (ex *exports) add(c *call, n network.Network, o service.ChangeOptions) work {
	x := change{before: ex.before(n.Name), requests: func(before *service.Status) []authzRequest {
		if !o.Replace {
			before = nil // the service refuses if the network exists
		}
		return networkRequests(n.Name, before, &n)
	}}
	o.Expect = x.expect(c)
	return work{requests: x.requests(x.before), do: func(ctx context.Context) ([]any, error) {
		if err := ex.api.AddNetwork(ctx, n, o); err != nil {
			return nil, err
		}
		return []any{NetworkPath(n.Name)}, nil
	}}
}

func networkFromXML(doc string) (network.Network, error) {
	if len(doc) > network.MaxXMLBytes {
		return network.Network{}, invalid(service.LimitExceeded,
			"the document has %d bytes and may have %d: leave out what does not concern the network", len(doc), network.MaxXMLBytes)
	}
	return network.FromXML([]byte(doc))
}

func (ex *exports) removeNetwork(c *call) (work, error) {
	name, err := text("name", argument[string](c, 0))
	if err != nil {
		return work{}, err
	}
	o, err := changeOptions(argument[map[string]godbus.Variant](c, 1), "Persistent")
	if err != nil {
		return work{}, err
	}
	x := change{before: ex.before(name), requests: func(before *service.Status) []authzRequest { return networkRequests(name, before, nil) }}
	o.Expect = x.expect(c)
	return work{requests: x.requests(x.before), do: func(ctx context.Context) ([]any, error) {
		return nil, ex.api.RemoveNetwork(ctx, name, o)
	}}, nil
}

func (ex *exports) getNetwork(c *call) (work, error) {
	name := argument[string](c, 0)
	return work{do: func(context.Context) ([]any, error) {
		if _, ok := ex.api.NetworkStatus(name); !ok {
			return nil, invalid(service.NetworkNotFound, "there is no network %.128q: `virtfirewallctl list` shows those there are", name)
		}
		return []any{NetworkPath(name)}, nil
	}}, nil
}

func (ex *exports) getNetworkByBridge(c *call) (work, error) {
	bridge := argument[string](c, 0)
	return work{do: func(context.Context) ([]any, error) {
		st, ok := ex.byBridge(bridge)
		if !ok {
			return nil, invalid(service.NetworkNotFound, "no network has the bridge %.128q: `virtfirewallctl list` shows those there are", bridge)
		}
		return []any{NetworkPath(st.Network.Name)}, nil
	}}, nil
}

func (ex *exports) byBridge(bridge string) (service.Status, bool) {
	var named service.Status
	found := false
	for _, st := range ex.api.AllNetworks() {
		if st.Interface == bridge {
			return st, true // the link's own name comes first
		}
		if st.Network.Bridge == bridge {
			named, found = st, true
		}
	}
	return named, found
}

func (ex *exports) listNetworks(*call) (work, error) {
	return work{do: func(context.Context) ([]any, error) {
		all := ex.api.AllNetworks()
		paths := make([]godbus.ObjectPath, len(all))
		for i, st := range all {
			paths[i] = NetworkPath(st.Network.Name)
		}
		return []any{paths}, nil
	}}, nil
}

func (ex *exports) preview(c *call) (work, error) {
	backend := argument[string](c, 1)
	if backend != "" && backend != "nftables" && backend != "iptables" {
		return work{}, invalid(service.InvalidArgument, "backend %.64q: use nftables, iptables, or nothing for the active one", backend)
	}
	n, err := networkFromXML(argument[string](c, 0))
	if err != nil {
		return work{}, err
	}
	return work{do: func(ctx context.Context) ([]any, error) {
		text, err := ex.api.Preview(ctx, n, backend)
		return []any{clean(text)}, err
	}}, nil
}

func (ex *exports) setBackend(c *call) (work, error) {
	backend := argument[string](c, 0)
	if backend != "auto" && backend != "nftables" && backend != "iptables" {
		return work{}, invalid(service.InvalidArgument, "backend %.64q: use auto, nftables or iptables", backend)
	}
	o, err := changeOptions(argument[map[string]godbus.Variant](c, 1), "Persistent")
	if err != nil {
		return work{}, err
	}
	return work{requests: []authzRequest{{ActionChooseBackend, map[string]string{"backend": backend}}}, do: func(ctx context.Context) ([]any, error) {
		return nil, ex.api.SetBackend(ctx, backend, o)
	}}, nil
}

func (ex *exports) reload(*call) (work, error) {
	return work{do: func(ctx context.Context) ([]any, error) {
		return nil, ex.api.Reload(ctx)
	}}, nil
}

func (ex *exports) diagnose(*call) (work, error) {
	return work{do: func(ctx context.Context) ([]any, error) {
		findings, err := ex.api.Diagnose(ctx)
		out := make([]map[string]godbus.Variant, len(findings))
		for i, f := range findings {
			out[i] = make(map[string]godbus.Variant, 6)
			for key, value := range map[string]string{"Id": string(f.ID), "Severity": string(f.Severity()), "Network": f.Network,
				"Summary": f.Summary, "Evidence": f.Evidence, "Remedy": f.Remedy} {
				out[i][key] = godbus.MakeVariant(clean(value))
			}
		}
		return []any{out}, err
	}}, nil
}

func (ex *exports) reapply(*call) (work, error) {
	return work{do: func(ctx context.Context) ([]any, error) {
		n, err := ex.api.Reapply(ctx)
		return []any{uint32(n)}, err
	}}, nil
}
