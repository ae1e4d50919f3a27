// Package dbus puts the service on the message bus: it exports the objects of
// the contract, authorises calls to the service, and turns the service's events
// into signals and its errors into error names. It holds no state of its own;
// every answer is read from the service when it is asked for. It does not
// validate networks: that is the service's work.
package dbus

import "time"

// The names of the contract.
const (
	// BusName is the well-known name that the service owns.
	BusName = "org.virtfirewall.NetworkFirewall1"
	// ManagerPath is the object of the service as a whole.
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
	// authTimeout is how long a person may take to type a password. It is less
	// than the three minutes that virtfirewallctl waits.
	authTimeout = 150 * time.Second
	// busTimeout limits calls to the bus daemon itself.
	busTimeout = 5 * time.Second
	// writeTimeout is how long the bus may not read before it counts as dead.
	// The daemon then ends, and systemd restarts it.
	writeTimeout = 30 * time.Second
)
