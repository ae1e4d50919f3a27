package dbus

import (
	"context"
	"fmt"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service"
)

// exports are the objects that clients call: the manager, and one for each network.
type exports struct {
	api  service.API
	spec interfaces
	bus  *Bus
}

// handlers returns the methods that are served, by interface and name. Their
// arguments are in the introspection data.
func (ex *exports) handlers() map[string]map[string]method {
	return map[string]map[string]method{
		managerInterface: {
			"AddNetwork":         {action: ActionManageNetworks, prepare: ex.addNetwork},
			"AddNetworkFromXML":  {action: ActionManageNetworks, prepare: ex.addNetworkFromXML},
			"RemoveNetwork":      {action: ActionManageNetworks, prepare: ex.removeNetwork},
			"GetNetwork":         {action: ActionRead, state: true, prepare: ex.getNetwork},
			"GetNetworkByBridge": {action: ActionRead, state: true, prepare: ex.getNetworkByBridge},
			"ListNetworks":       {action: ActionRead, state: true, prepare: ex.listNetworks},
			"Preview":            {action: ActionRead, prepare: ex.preview},
			"SetBackend":         {action: ActionChooseBackend, prepare: ex.setBackend},
			"Reload":             {action: ActionReload, prepare: ex.reload},
			"Reapply":            {action: ActionReload, prepare: ex.reapply},
			"InstallZones":       {action: ActionManageZones, prepare: ex.installZones},
			"RemoveZones":        {action: ActionManageZones, prepare: ex.removeZones},
			"BindInterface":      {action: ActionManageZones, prepare: ex.bindInterface},
			"UnbindInterface":    {action: ActionManageZones, prepare: ex.unbindInterface},
			"Diagnose":           {action: ActionDiagnose, exclusive: make(chan struct{}, 1), prepare: ex.diagnose},
		},
		networkInterface: {
			"Update":            {action: ActionManageNetworks, prepare: ex.update},
			"GetRuleset":        {action: ActionRead, prepare: ex.getRuleset},
			"GetCounters":       {action: ActionRead, prepare: ex.getCounters},
			"AddPortForward":    {action: ActionManagePortForwards, prepare: ex.notImplemented("AddPortForward")},
			"RemovePortForward": {action: ActionManagePortForwards, prepare: ex.notImplemented("RemovePortForward")},
		},
		propertiesInterface: {
			"Get":    {action: ActionRead, state: true, prepare: ex.getProperty},
			"GetAll": {action: ActionRead, state: true, prepare: ex.getAllProperties},
			"Set":    {prepare: ex.setProperty},
		},
		objectManagerInterface: {
			"GetManagedObjects": {action: ActionRead, state: true, prepare: ex.getManagedObjects},
		},
		introspectableInterface: {
			"Introspect": {prepare: ex.introspectCall},
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
func (ex *exports) notImplemented(name string) func(*call) (work, error) {
	return func(c *call) (work, error) {
		w := work{do: func(context.Context) ([]any, error) {
			return nil, refuse(errNotSupported, "%s is not part of this version of the service yet: use a later one", name)
		}}
		if c.object.kind == networkObject {
			w.requests = []authzRequest{{ActionManagePortForwards, ex.networkDetails(c.object.name)}}
		}
		return w, nil
	}
}

// networkDetails describes a network that a call does not change itself.
func (ex *exports) networkDetails(name string) map[string]string {
	if before := ex.before(name); before != nil {
		return detailsOf(before.Network).toMap(nil)
	}
	return details{name: name}.toMap(nil)
}
