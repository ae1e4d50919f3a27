package dbus

import (
	"bytes"
	"context"
	"fmt"
	"os"

	godbus "github.com/godbus/dbus/v5"
)

// getProperty serves org.freedesktop.DBus.Properties.Get.
func (ex *exports) getProperty(c *call) (work, error) {
	iface, name := argument[string](c, 0), argument[string](c, 1)
	return work{do: func(context.Context) ([]any, error) {
		list, err := ex.properties(c, iface)
		if err != nil {
			return nil, err
		}
		for _, p := range list {
			if p.name == name {
				return []any{godbus.MakeVariant(p.value)}, nil
			}
		}
		return nil, unknownProperty(c, name)
	}}, nil
}

// getAllProperties serves org.freedesktop.DBus.Properties.GetAll.
func (ex *exports) getAllProperties(c *call) (work, error) {
	iface := argument[string](c, 0)
	return work{do: func(context.Context) ([]any, error) {
		list, err := ex.properties(c, iface)
		return []any{variants(list)}, err
	}}, nil
}

// setProperty serves org.freedesktop.DBus.Properties.Set, and always refuses:
// everything that can change is changed by methods.
func (ex *exports) setProperty(c *call) (work, error) {
	iface, name := argument[string](c, 0), argument[string](c, 1)
	return work{do: func(context.Context) ([]any, error) {
		list, err := ex.properties(c, iface)
		if err != nil {
			return nil, err
		}
		for _, p := range list {
			if p.name == name {
				return nil, refuse(errPropertyReadOnly, "%s cannot be set: settings of a network are changed with Update", name)
			}
		}
		return nil, unknownProperty(c, name)
	}}, nil
}

func unknownProperty(c *call, name string) error {
	return refuse(errUnknownProperty, "%s has no property %.128s", c.path, name)
}

// properties returns those of one interface of the object called; "" means any,
// as in the specification.
func (ex *exports) properties(c *call, iface string) ([]property, error) {
	if iface != "" && iface != c.object.kind.ownInterface() {
		for _, known := range c.object.kind.interfaces() {
			if iface == known {
				return nil, nil
			}
		}
		return nil, refuse(errUnknownInterface, "%s has no interface %.255s", c.path, iface)
	}
	if c.object.kind == managerObject {
		return managerProperties(ex.api.HostStatus()), nil
	}
	st, ok := ex.api.NetworkStatus(c.object.name)
	if !ok {
		return nil, refuse(errUnknownObject, "there is no object %s any more", c.path)
	}
	return networkProperties(st), nil
}

// getManagedObjects serves org.freedesktop.DBus.ObjectManager.
func (ex *exports) getManagedObjects(c *call) (work, error) {
	return work{do: func(context.Context) ([]any, error) {
		msg, err := managedObjectsReply(ex.bus.serials.GetSerial(), c.serial, c.sender, ex.api.AllNetworks())
		return []any{encoded(msg)}, err
	}}, nil
}

func (ex *exports) introspectCall(c *call) (work, error) {
	return work{do: func(context.Context) ([]any, error) {
		text, err := ex.introspect(c.path, c.object)
		return []any{text}, err
	}}, nil
}

func ping(*call) (work, error) {
	return work{do: func(context.Context) ([]any, error) { return nil, nil }}, nil
}

// getMachineID serves org.freedesktop.DBus.Peer.GetMachineId.
func getMachineID(*call) (work, error) {
	return work{do: func(context.Context) ([]any, error) {
		id, err := os.ReadFile("/etc/machine-id")
		if err != nil {
			// On a host where systemd never ran, the bus has one of its own.
			id, err = os.ReadFile("/var/lib/dbus/machine-id")
		}
		if err != nil {
			return nil, fmt.Errorf("reading the machine's identifier: %w; systemd-machine-id-setup makes one", err)
		}
		return []any{clean(string(bytes.TrimSpace(id)))}, nil
	}}, nil
}
