package dbus

import (
	"strings"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// object is what a path refers to.
type object struct {
	kind objectKind
	name string // of the network
}

type objectKind int

const (
	parentObject  objectKind = iota // only has children
	managerObject                   // the service as a whole
	networkObject                   // the network may or may not exist
)

// NetworkPath returns the object path of the network of that name.
func NetworkPath(name string) godbus.ObjectPath {
	return godbus.ObjectPath(networksPath + "/" + network.Escape(name))
}

// parsePath returns the object at a path, and false for a path that no object
// can have.
func parsePath(p godbus.ObjectPath) (object, bool) {
	path := string(p)
	if path == ManagerPath {
		return object{kind: managerObject}, true
	}
	if path == "/" || path == networksPath || path != "" && strings.HasPrefix(networksPath, path+"/") {
		return object{kind: parentObject}, true
	}
	escaped, ok := strings.CutPrefix(path, networksPath+"/")
	if !ok || escaped == "" {
		return object{}, false
	}
	name, ok := network.Unescape(escaped)
	return object{kind: networkObject, name: name}, ok
}

// interfaces returns an object's interfaces, its own first.
func (k objectKind) interfaces() []string {
	switch k {
	case managerObject:
		return []string{managerInterface, propertiesInterface, introspectableInterface, peerInterface, objectManagerInterface}
	case networkObject:
		return []string{networkInterface, propertiesInterface, introspectableInterface, peerInterface}
	}
	return []string{introspectableInterface, peerInterface}
}

// ownInterface returns the interface with the object's properties; "" for none.
func (k objectKind) ownInterface() string {
	switch k {
	case managerObject:
		return managerInterface
	case networkObject:
		return networkInterface
	}
	return ""
}
