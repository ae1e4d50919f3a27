// Package dbus puts the service on the message bus: it exports the objects of
// the contract, decides which calls are let through to the service, turns the
// service's events into signals and its errors into error names. It holds no
// state of its own; every answer is read from the service when it is asked
// for. It does not judge what a network may be: that is the service's work.
package dbus

import "time"

// The names of the contract.
const (
	// BusName is the well-known name that the service owns.
	BusName = "org.virtfirewall.NetworkFirewall1"
	// ManagerPath is the object that speaks for the service as a whole.
	ManagerPath = "/org/virtfirewall/NetworkFirewall1"

	networksPath = ManagerPath + "/network"

	managerInterface = BusName
	networkInterface = BusName + ".Network"
	errorPrefix      = BusName + ".Error."

	propertiesInterface     = "org.freedesktop.DBus.Properties"
	introspectableInterface = "org.freedesktop.DBus.Introspectable"
	objectManagerInterface  = "org.freedesktop.DBus.ObjectManager"
	peerInterface           = "org.freedesktop.DBus.Peer"

	busDriver = "org.freedesktop.DBus"
)

const (
	// callTimeout lets the answer come within the 25 seconds that D-Bus
	// clients wait unless told otherwise.
	callTimeout = 20 * time.Second
	// authTimeout is as long as a person may need to type a password. It ends
	// before the three minutes that virtfirewallctl waits.
	authTimeout = 150 * time.Second
	// busTimeout bounds what the bus daemon itself is asked for.
	busTimeout = 5 * time.Second
	// writeTimeout is how long the bus may refuse to read before it counts as
	// dead. The daemon then ends, and systemd starts it anew.
	writeTimeout = 30 * time.Second
)
