package dbus

import (
	"fmt"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service"
)

// BenchmarkAddNetwork is what the bus adds to a change: the service behind it
// does nothing.
func BenchmarkAddNetwork(b *testing.B) {
	r := newRig(b)
	object := r.object(ManagerPath)
	settings, replace := plainSettings("lab"), options("Replace", true)
	for b.Loop() {
		must(b, object.Call(managerInterface+".AddNetwork", 0, "lab", settings, replace).Err)
	}
}

func BenchmarkGetProperty(b *testing.B) {
	r := newRig(b)
	object := r.object(r.add(b, "lab"))
	for b.Loop() {
		must(b, object.Call(propertiesInterface+".Get", 0, networkInterface, "State").Err)
	}
}

func BenchmarkGetManagedObjects(b *testing.B) {
	r := newRig(b)
	for i := range 1000 {
		n := namedNetwork(b, fmt.Sprintf("network-%d", i))
		must(b, r.api.AddNetwork(b.Context(), n, service.ChangeOptions{}))
	}
	client, err := godbus.Connect(r.bus.Address)
	must(b, err)
	defer client.Close()
	object := client.Object(BusName, ManagerPath)
	b.Run("with godbus as the client", func(b *testing.B) {
		for b.Loop() {
			if err := object.Call(objectManagerInterface+".GetManagedObjects", 0).Err; err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("writing alone", func(b *testing.B) {
		for b.Loop() {
			if _, err := managedObjectsReply(1, 1, ":1.1", r.api.AllNetworks()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
