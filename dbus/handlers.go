package dbus

import (
	"context"
	"fmt"

	godbus "github.com/godbus/dbus/v5"
)

// handlers returns the methods that are served, by interface and name. Their
// arguments are in the introspection data.
func (s *Server) handlers() map[string]map[string]method {
	return map[string]map[string]method{
		managerInterface: {
			"AddNetwork":         {action: ActionManageNetworks, prepare: s.addNetwork},
			"AddNetworkFromXML":  {action: ActionManageNetworks, prepare: s.addNetworkFromXML},
			"RemoveNetwork":      {action: ActionManageNetworks, prepare: s.removeNetwork},
			"GetNetwork":         {action: ActionRead, state: true, prepare: s.getNetwork},
			"GetNetworkByBridge": {action: ActionRead, state: true, prepare: s.getNetworkByBridge},
			"ListNetworks":       {action: ActionRead, state: true, prepare: s.listNetworks},
			"Preview":            {action: ActionRead, prepare: s.preview},
			"SetBackend":         {action: ActionChooseBackend, prepare: s.setBackend},
			"Reload":             {action: ActionReload, prepare: s.reload},
			"Reapply":            {action: ActionReload, prepare: s.reapply},
			"InstallZones":       {action: ActionManageZones, prepare: s.installZones},
			"RemoveZones":        {action: ActionManageZones, prepare: s.removeZones},
			"BindInterface":      {action: ActionManageZones, prepare: s.bindInterface},
			"UnbindInterface":    {action: ActionManageZones, prepare: s.unbindInterface},
			"Diagnose":           {action: ActionDiagnose, exclusive: make(chan struct{}, 1), prepare: s.diagnose},
		},
		networkInterface: {
			"Update":            {action: ActionManageNetworks, prepare: s.update},
			"GetRuleset":        {action: ActionRead, prepare: s.getRuleset},
			"GetCounters":       {action: ActionRead, prepare: s.getCounters},
			"AddPortForward":    {action: ActionManagePortForwards, prepare: s.notImplemented("AddPortForward")},
			"RemovePortForward": {action: ActionManagePortForwards, prepare: s.notImplemented("RemovePortForward")},
		},
		propertiesInterface: {
			"Get":    {action: ActionRead, state: true, prepare: s.getProperty},
			"GetAll": {action: ActionRead, state: true, prepare: s.getAllProperties},
			"Set":    {prepare: s.setProperty},
		},
		objectManagerInterface: {
			"GetManagedObjects": {action: ActionRead, state: true, prepare: s.getManagedObjects},
		},
		introspectableInterface: {
			"Introspect": {prepare: s.introspectCall},
		},
		peerInterface: {
			"Ping":         {prepare: ping},
			"GetMachineId": {prepare: getMachineID},
		},
	}
}

// withSignatures returns the handlers with their methods' signatures. Handlers
// and introspection data must name the same methods.
func withSignatures(handlers map[string]map[string]method, spec interfaces) (map[string]map[string]method, error) {
	bound := make(map[string]map[string]method, len(spec))
	for name, iface := range spec {
		bound[name] = make(map[string]method, len(iface.Methods))
		if len(iface.Methods) != len(handlers[name]) {
			return nil, fmt.Errorf("interface %s: %d methods are described and %d served", name, len(iface.Methods), len(handlers[name]))
		}
		for _, x := range iface.Methods {
			m, ok := handlers[name][x.Name]
			if !ok {
				return nil, fmt.Errorf("interface %s: method %s is described and not served", name, x.Name)
			}
			out, err := godbus.ParseSignature(x.signature("out"))
			if err != nil {
				return nil, fmt.Errorf("interface %s: method %s: %w", name, x.Name, err)
			}
			m.in, m.out = x.signature("in"), out
			bound[name][x.Name] = m
		}
	}
	if len(bound) != len(handlers) {
		return nil, fmt.Errorf("%d interfaces are described and %d served", len(bound), len(handlers))
	}
	return bound, nil
}

// notImplemented serves a method of the contract that this version does not have.
func (s *Server) notImplemented(name string) func(*call) (work, error) {
	return func(c *call) (work, error) {
		w := work{do: func(context.Context) ([]any, error) {
			return nil, refuse(errNotSupported, "%s is not part of this version of the service yet: use a later one", name)
		}}
		if c.object.kind == networkObject {
			w.requests = []authzRequest{{ActionManagePortForwards, s.networkDetails(c.object.name)}}
		}
		return w, nil
	}
}

// networkDetails describes a network that a call does not change itself.
func (s *Server) networkDetails(name string) map[string]string {
	if before := s.before(name); before != nil {
		return detailsOf(before.Network).toMap(nil)
	}
	return details{name: name}.toMap(nil)
}
