package dbus

import (
	"strings"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// object is what a path stands for.
type object struct {
	kind objectKind
	name string // of the network
}

type objectKind int

const (
	parentObject  objectKind = iota // exists to be walked through
	managerObject                   //
	networkObject                   // may or may not exist just now
)

// NetworkPath is the object path of the network of that name.
func NetworkPath(name string) godbus.ObjectPath {
	return godbus.ObjectPath(networksPath + "/" + network.Escape(name))
}

// parsePath says what stands at a path; it is false where nothing ever can.
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

// interfaces are those of an object, the ones of its own first.
func (k objectKind) interfaces() []string {
	switch k {
	case managerObject:
		return []string{managerInterface, propertiesInterface, introspectableInterface, peerInterface, objectManagerInterface}
	case networkObject:
		return []string{networkInterface, propertiesInterface, introspectableInterface, peerInterface}
	}
	return []string{introspectableInterface, peerInterface}
}

// own is the interface whose properties the object has; "" for none.
func (k objectKind) own() string {
	switch k {
	case managerObject:
		return managerInterface
	case networkObject:
		return networkInterface
	}
	return ""
}
