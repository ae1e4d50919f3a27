package rig

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/dbus"
	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// What the service and its errors are called on the bus, and the interfaces that
// D-Bus itself describes.
const (
	ManagerPath = godbus.ObjectPath("/org/virtfirewall/NetworkFirewall1")
	ManagerName = "org.virtfirewall.NetworkFirewall1"
	NetworkName = ManagerName + ".Network"
	ErrorPrefix = ManagerName + ".Error."

	PropertiesName = "org.freedesktop.DBus.Properties"
	ObjectsName    = "org.freedesktop.DBus.ObjectManager"
)

// Client is a connection to the bus of a host that calls the service.
type Client struct{ Conn *godbus.Conn }

// Call calls a method of an object of the service.
func (c *Client) Call(path godbus.ObjectPath, method string, args ...any) *godbus.Call {
	ctx, cancel := context.WithTimeout(context.Background(), host.Patient(CallTimeout))
	defer cancel()
	return c.Conn.Object(ManagerName, path).CallWithContext(ctx, method, 0, args...)
}

// Manager calls a method of the manager.
func (c *Client) Manager(method string, args ...any) *godbus.Call {
	return c.Call(ManagerPath, ManagerName+"."+method, args...)
}

// Network calls a method of a network's object.
func (c *Client) Network(name, method string, args ...any) *godbus.Call {
	return c.Call(dbus.NetworkPath(name), NetworkName+"."+method, args...)
}

// AddXML adds a network from a libvirt document, with options as Opts takes them.
func (c *Client) AddXML(xml string, pairs ...any) *godbus.Call {
	return c.Manager("AddNetworkFromXML", xml, Opts(pairs...))
}

// Opts makes an options argument: Opts("Persistent", true).
func Opts(pairs ...any) map[string]godbus.Variant {
	m := map[string]godbus.Variant{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i].(string)] = godbus.MakeVariant(pairs[i+1])
	}
	return m
}

// OK fails the test where a call failed, and stores its answer.
func (r *Rig) OK(call *godbus.Call, into ...any) {
	r.T.Helper()
	if call.Err != nil {
		r.T.Fatalf("%s: %v", call.Method, call.Err)
	}
	if len(into) > 0 {
		if err := call.Store(into...); err != nil {
			r.T.Fatalf("%s: %v", call.Method, err)
		}
	}
}

// WantError checks that a call failed with an error of the contract. name is its
// last part, or a full name.
func (r *Rig) WantError(call *godbus.Call, name string) {
	r.T.Helper()
	if !strings.Contains(name, ".") {
		name = ErrorPrefix + name
	}
	var e godbus.Error
	if !errors.As(call.Err, &e) || e.Name != name {
		r.T.Errorf("%s: got %v, want %s", call.Method, call.Err, name)
	}
}

// WantRefusal checks an error's name and that its message has these words.
func (r *Rig) WantRefusal(call *godbus.Call, name string, words ...string) {
	r.T.Helper()
	r.WantError(call, name)
	for _, word := range words {
		if !strings.Contains(Message(call), word) {
			r.T.Errorf("%s: the message does not say %q: %s", name, word, Message(call))
		}
	}
}

// Message returns the text of a call's error.
func Message(call *godbus.Call) string {
	var e godbus.Error
	if errors.As(call.Err, &e) && len(e.Body) > 0 {
		return fmt.Sprint(e.Body[0])
	}
	return fmt.Sprint(call.Err)
}

// ErrorName returns the name of the error that a call ended with; "" for none.
func ErrorName(err error) string {
	var e godbus.Error
	if errors.As(err, &e) {
		return e.Name
	}
	if err != nil {
		return "local: " + err.Error()
	}
	return ""
}

func lastElement(p godbus.ObjectPath) string { return path.Base(string(p)) }
