package dbus

import (
	_ "embed"
	"encoding/xml"
	"fmt"
	"strings"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// InterfaceXML is the introspection data with its documentation, as installed.
//
//go:embed org.virtfirewall.NetworkFirewall1.xml
var InterfaceXML string

const introspectHeader = `<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
`

// The elements of introspection data.
type (
	nodeXML struct {
		XMLName    xml.Name       `xml:"node"`
		Interfaces []interfaceXML `xml:"interface"`
		Children   []childXML     `xml:"node"`
	}
	childXML struct {
		Name string `xml:"name,attr"`
	}
	interfaceXML struct {
		Name        string          `xml:"name,attr"`
		Methods     []memberXML     `xml:"method"`
		Signals     []memberXML     `xml:"signal"`
		Properties  []propertyXML   `xml:"property"`
		Annotations []annotationXML `xml:"annotation"`
	}
	memberXML struct {
		Name        string          `xml:"name,attr"`
		Args        []argXML        `xml:"arg"`
		Annotations []annotationXML `xml:"annotation"`
	}
	argXML struct {
		Name        string          `xml:"name,attr,omitempty"`
		Type        string          `xml:"type,attr"`
		Direction   string          `xml:"direction,attr,omitempty"`
		Annotations []annotationXML `xml:"annotation"`
	}
	propertyXML struct {
		Name        string          `xml:"name,attr"`
		Type        string          `xml:"type,attr"`
		Access      string          `xml:"access,attr"`
		Annotations []annotationXML `xml:"annotation"`
	}
	annotationXML struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
)

// signature returns that of the arguments of one direction, "in" or "out".
func (m memberXML) signature(direction string) string {
	var b strings.Builder
	for _, a := range m.Args {
		if a.Direction == direction {
			b.WriteString(a.Type)
		}
	}
	return b.String()
}

// interfaces is the introspection data, by interface name.
type interfaces map[string]interfaceXML

func parseInterfaces(doc string) (interfaces, error) {
	var n nodeXML
	if err := xml.Unmarshal([]byte(doc), &n); err != nil {
		return nil, fmt.Errorf("reading the introspection data: %w", err)
	}
	m := make(interfaces, len(n.Interfaces))
	for _, i := range n.Interfaces {
		m[i.Name] = i
	}
	return m, nil
}

// introspect returns the reply to Introspect: InterfaceXML's data of the object
// without its comments, and the object's children.
func (ex *exports) introspect(path godbus.ObjectPath, o object) (string, error) {
	var n nodeXML
	for _, name := range o.kind.interfaces() {
		n.Interfaces = append(n.Interfaces, ex.spec[name])
	}
	for _, c := range ex.children(string(path)) {
		n.Children = append(n.Children, childXML{Name: c})
	}
	text, err := xml.MarshalIndent(n, "", " ")
	if err != nil {
		return "", fmt.Errorf("writing the introspection data of %s: %w", path, err)
	}
	return introspectHeader + string(text) + "\n", nil
}

// children returns the last elements of the paths directly below path.
func (ex *exports) children(path string) []string {
	if path == networksPath {
		all := ex.api.AllNetworks()
		names := make([]string, len(all))
		for i, st := range all {
			names[i] = network.Escape(st.Network.Name)
		}
		return names
	}
	rest, ok := strings.CutPrefix(networksPath, strings.TrimSuffix(path, "/")+"/")
	if !ok {
		return nil
	}
	first, _, _ := strings.Cut(rest, "/")
	return []string{first}
}
