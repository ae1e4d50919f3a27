package dbus

import (
	"errors"
	"fmt"
	"net"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service"
)

// signals emits the signals of one event.
func (s *Server) signals(e service.Event) {
	switch e := e.(type) {
	case service.NetworkAdded:
		s.added(e.Status)
	case service.NetworkRemoved:
		s.removed(e.Status)
	case service.NetworkChanged:
		s.networkChanged(e.Old, e.New)
	case service.HostChanged:
		s.propertiesChanged(ManagerPath, managerInterface, changed(managerProperties(e.Old), managerProperties(e.New)))
		if e.Old.Backend != e.New.Backend {
			s.send(ManagerPath, managerInterface, "BackendChanged", clean(e.Old.Backend), clean(e.New.Backend))
		}
	case service.Repaired:
		s.send(ManagerPath, managerInterface, "Repaired", clean(e.Name), clean(e.Cause))
	case service.FindingsChanged:
		s.send(ManagerPath, managerInterface, "FindingsChanged")
	default:
		s.log.Error("no signal is known for an event", "event", fmt.Sprintf("%T", e))
	}
}

func (s *Server) added(st service.Status) {
	path := NetworkPath(st.Network.Name)
	s.send(ManagerPath, objectManagerInterface, "InterfacesAdded", path,
		map[string]map[string]godbus.Variant{networkInterface: variants(networkProperties(st))})
	s.send(ManagerPath, managerInterface, "NetworkAdded", st.Network.Name, path)
}

func (s *Server) removed(st service.Status) {
	path := NetworkPath(st.Network.Name)
	s.send(ManagerPath, managerInterface, "NetworkRemoved", st.Network.Name, path)
	s.send(ManagerPath, objectManagerInterface, "InterfacesRemoved", path, []string{networkInterface})
}

func (s *Server) networkChanged(old, now service.Status) {
	// The UUID is announced as constant, so a network of the same name with
	// another one is another object.
	if old.Network.UUID != now.Network.UUID {
		s.removed(old)
		s.added(now)
		return
	}
	s.propertiesChanged(NetworkPath(now.Network.Name), networkInterface,
		changed(networkProperties(old), networkProperties(now)))
}

func (s *Server) propertiesChanged(path godbus.ObjectPath, iface string, values map[string]godbus.Variant) {
	if len(values) > 0 {
		s.send(path, propertiesInterface, "PropertiesChanged", iface, values, []string{})
	}
}

func (s *Server) send(path godbus.ObjectPath, iface, member string, values ...any) {
	err := s.bus.conn.Emit(path, iface+"."+member, values...)
	// The first failure ends the connection; only that one is logged.
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, godbus.ErrClosed) {
		s.log.Error("emitting a signal", "signal", member, "path", path, "err", err)
	}
}
