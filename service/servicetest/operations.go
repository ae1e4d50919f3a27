package servicetest

import (
	"context"
	"fmt"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
)

// Operation is a call of the API that consists of several steps.
type Operation struct {
	Name string
	// Prepare sets up what the call needs; nil for nothing.
	Prepare func(w *World)
	Do      func(ctx context.Context, w *World) error
}

// NetXML returns a network's document with a forward mode (nat, nat6 for both
// families, route, open, isolated) and addresses in CIDR notation.
func NetXML(name, bridge, mode string, cidrs ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<network><name>%s</name>", name)
	switch mode {
	case "isolated":
	case "nat6":
		b.WriteString("<forward mode='nat'><nat ipv6='yes'/></forward>")
	default:
		fmt.Fprintf(&b, "<forward mode='%s'/>", mode)
	}
	fmt.Fprintf(&b, "<bridge name='%s'/>", bridge)
	for _, cidr := range cidrs {
		address, bits, _ := strings.Cut(cidr, "/")
		family := "ipv4"
		if strings.Contains(address, ":") {
			family = "ipv6"
		}
		fmt.Fprintf(&b, "<ip family='%s' address='%s' prefix='%s'/>", family, address, bits)
	}
	b.WriteString("</network>")
	return b.String()
}

// Zoned returns a document with a zone.
func Zoned(doc, zone string) string {
	return strings.Replace(doc, "<bridge ", "<bridge zone='"+zone+"' ", 1)
}

// NewBase starts the world for Operations and returns it: with a persistent
// network, one that was changed at runtime, and a runtime one, on virbr1, virbr3
// and virbr2. The platform has bridges virbr1 to virbr5, and its firewalld has
// virbr5 in zone work.
func NewBase(w *World) *World {
	w.T.Helper()
	// Totals of an earlier run, so that a counter which starts from zero shows.
	w.Write("run/counters.json", `{"kept":{"FromGuestPackets":1000},"changed":{"ToGuestPackets":2000}}`)
	w.Write("kept.xml", NetXML("kept", "virbr1", "nat6", "10.1.0.1/24", "2001:db8:1::1/64"))
	w.Write("changed.xml", NetXML("changed", "virbr3", "route", "10.3.0.1/24"))
	w.Start()
	ctx := context.Background()
	w.Must(w.Add(ctx, NetXML("runtime", "virbr2", "nat", "10.2.0.1/24"), service.ChangeOptions{}))
	w.Must(w.Service.UpdateNetwork(ctx, "changed", map[string]any{"ForwardMode": "isolated"}, service.ChangeOptions{}))
	w.Compare()
	return w
}

func add(doc string, o service.ChangeOptions) func(context.Context, *World) error {
	return func(ctx context.Context, w *World) error { return w.Add(ctx, doc, o) }
}

func update(name string, persistent bool, settings map[string]any) func(context.Context, *World) error {
	return func(ctx context.Context, w *World) error {
		return w.Service.UpdateNetwork(ctx, name, settings, service.ChangeOptions{Persistent: persistent})
	}
}

func remove(name string, persistent bool) func(context.Context, *World) error {
	return func(ctx context.Context, w *World) error {
		return w.Service.RemoveNetwork(ctx, name, service.ChangeOptions{Persistent: persistent})
	}
}

func move(backend string, o service.ChangeOptions) func(context.Context, *World) error {
	return func(ctx context.Context, w *World) error { return w.Service.SetBackend(ctx, backend, o) }
}

func reload(ctx context.Context, w *World) error { return w.Service.Reload(ctx) }

// Operations returns all calls that change something, for a world of NewBase.
func Operations() []Operation {
	fresh := NetXML("new", "virbr4", "nat", "10.4.0.1/24")
	elsewhere := NetXML("new", "virbr5", "nat", "10.5.0.1/24")
	route := NetXML("runtime", "virbr2", "route", "10.2.0.1/24")
	persistent := service.ChangeOptions{Persistent: true}
	return []Operation{
		{Name: "move", Do: move(choice.IPTables, service.ChangeOptions{})},
		{Name: "move for good", Do: move(choice.IPTables, persistent)},
		{Name: "stay, for good", Do: move(choice.NFTables, persistent)},
		{Name: "reload to the other", Prepare: configureIPTables, Do: reload},
		{Name: "add", Do: add(fresh, service.ChangeOptions{})},
		{Name: "add for good", Do: add(fresh, persistent)},
		{Name: "add with a zone", Do: add(Zoned(fresh, "trusted"), service.ChangeOptions{})},
		// firewalld has virbr5 in zone work beforehand.
		{Name: "add with a zone, bridge in another", Do: add(Zoned(elsewhere, "trusted"), persistent)},
		{Name: "replace", Do: add(route, service.ChangeOptions{Replace: true})},
		{Name: "replace for good", Do: add(route, service.ChangeOptions{Replace: true, Persistent: true})},
		{Name: "replace with another bridge and a zone", Do: add(Zoned(NetXML("kept", "virbr5", "nat", "10.5.0.1/24"), "trusted"), service.ChangeOptions{Replace: true})},
		{Name: "update zone", Do: update("kept", true, map[string]any{"Zone": "trusted"})},
		{Name: "update zone of a changed one", Do: update("changed", true, map[string]any{"Zone": "trusted"})},
		{Name: "update bridge", Do: update("kept", false, map[string]any{"Bridge": "virbr4", "Addresses": []string{"10.4.0.1/24"}})},
		{Name: "update bridge and zone", Do: update("kept", true, map[string]any{"Bridge": "virbr5", "Zone": "trusted", "Addresses": []string{"10.5.0.1/24"}})},
		{Name: "update subnet", Do: update("runtime", false, map[string]any{"Addresses": []string{"10.77.0.1/24"}})},
		{Name: "update mode", Do: update("kept", false, map[string]any{"ForwardMode": "route", "NATIPv6": false})},
		{Name: "update to open with a zone", Do: update("runtime", true, map[string]any{"ForwardMode": "open", "Zone": "trusted"})},
		{Name: "update to open", Do: update("runtime", true, map[string]any{"ForwardMode": "open"})},
		{Name: "remove runtime", Do: remove("runtime", false)},
		{Name: "remove until reload", Do: remove("kept", false)},
		{Name: "remove for good", Do: remove("changed", true)},
		{Name: "reload", Prepare: editFiles, Do: reload},
		{Name: "bind", Do: func(ctx context.Context, w *World) error {
			_, err := w.Service.BindInterface(ctx, "virbr1", "trusted", nil)
			return err
		}},
		{Name: "unbind", Do: func(ctx context.Context, w *World) error { return w.Service.UnbindInterface(ctx, "virbr1", nil) }},
	}
}

func configureIPTables(w *World) {
	w.Write("etc/virtfirewalld.conf", "firewall_backend = \"iptables\"\n")
}

// editFiles changes networks' files by hand.
func editFiles(w *World) {
	w.Write("kept.xml", NetXML("kept", "virbr5", "route", "10.5.0.1/24"))
	w.Write("by hand.xml", NetXML("byhand", "virbr1", "nat", "10.1.0.1/24"))
}
