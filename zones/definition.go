package zones

import (
	"encoding/xml"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/godbus/dbus/v5"
)

// kind tells firewalld's zones from its policies.
type kind string

const (
	zoneKind   kind = "zone"
	policyKind kind = "policy"
)

// folder returns where firewalld has the files of the kind.
func (k kind) folder() string {
	if k == zoneKind {
		return "zones"
	}
	return "policies"
}

// provenance is the version attribute of what Install puts into firewalld. Our
// files do not carry it, nor do libvirt's: by it, Remove tells what Install made
// from a copy that an administrator made.
const provenance = "virtfirewalld"

// defaultPriority is what firewalld assigns a policy whose file has none.
const defaultPriority = int32(-1)

// definition is one zone or policy of ours.
type definition struct {
	kind kind
	name string
	doc  document
}

// document is the part of firewalld's file format that our files use.
type document struct {
	XMLName     xml.Name
	Target      string   `xml:"target,attr"`
	Short       string   `xml:"short"`
	Description string   `xml:"description"`
	Ingress     []named  `xml:"ingress-zone"`
	Egress      []named  `xml:"egress-zone"`
	Services    []named  `xml:"service"`
	Protocols   []valued `xml:"protocol"`
	Rules       []rule   `xml:"rule"`
	// Unknown holds the elements that this type does not have.
	Unknown []anything `xml:",any"`
}

type named struct {
	Name string `xml:"name,attr"`
}

type valued struct {
	Value string `xml:"value,attr"`
}

type rule struct {
	Priority int        `xml:"priority,attr"`
	Reject   *struct{}  `xml:"reject"`
	Unknown  []anything `xml:",any"`
}

type anything struct {
	XMLName xml.Name
}

// definitions returns our zones, then our policies, which name the zones.
func definitions() ([]definition, error) {
	var defs []definition
	for _, k := range []kind{zoneKind, policyKind} {
		paths, err := fs.Glob(Files(), k.folder()+"/*.xml")
		if err != nil {
			return nil, fmt.Errorf("listing the embedded %s: %w", k.folder(), err)
		}
		for _, p := range paths {
			text, err := fs.ReadFile(Files(), p)
			if err != nil {
				return nil, fmt.Errorf("reading the embedded %s: %w", p, err)
			}
			doc, err := parse(k, text)
			if err != nil {
				return nil, fmt.Errorf("parsing the embedded %s: %w", p, err)
			}
			defs = append(defs, definition{k, strings.TrimSuffix(path.Base(p), ".xml"), doc})
		}
	}
	return defs, nil
}

func parse(k kind, text []byte) (document, error) {
	var d document
	if err := xml.Unmarshal(text, &d); err != nil {
		return d, err
	}
	if d.XMLName.Local != string(k) {
		return d, fmt.Errorf("it is a %s, not a %s", d.XMLName.Local, k)
	}
	for _, u := range d.Unknown {
		return d, fmt.Errorf("no meaning for the element %s", u.XMLName.Local)
	}
	for _, r := range d.Rules {
		if r.Reject == nil || len(r.Unknown) > 0 {
			return d, fmt.Errorf("no meaning for a rule other than reject")
		}
	}
	return d, nil
}

// variants returns the settings in the form that addZone2 and addPolicy take.
// Absent keys have firewalld's defaults. forward is never absent: a new zone has
// it on, and a file without the element has it off.
func (d definition) variants() map[string]dbus.Variant {
	v := map[string]dbus.Variant{
		"version":     dbus.MakeVariant(provenance),
		"short":       dbus.MakeVariant(d.doc.Short),
		"description": dbus.MakeVariant(d.doc.Description),
		"target":      dbus.MakeVariant(d.target()),
	}
	lists := map[string][]string{
		"services":  names(d.doc.Services),
		"protocols": values(d.doc.Protocols),
	}
	if d.kind == zoneKind {
		v["forward"] = dbus.MakeVariant(false)
		lists["rules_str"] = d.richRules()
	} else {
		v["priority"] = dbus.MakeVariant(defaultPriority)
		lists["rich_rules"] = d.richRules()
		lists["ingress_zones"] = names(d.doc.Ingress)
		lists["egress_zones"] = names(d.doc.Egress)
	}
	for key, list := range lists {
		if len(list) > 0 {
			v[key] = dbus.MakeVariant(list)
		}
	}
	return v
}

func (d definition) target() string {
	if d.doc.Target == "" {
		return "default"
	}
	return d.doc.Target
}

func (d definition) richRules() []string {
	var rules []string
	for _, r := range d.doc.Rules {
		rules = append(rules, fmt.Sprintf(`rule priority="%d" reject`, r.Priority))
	}
	return rules
}

func names(in []named) []string {
	var out []string
	for _, n := range in {
		out = append(out, n.Name)
	}
	return out
}

func values(in []valued) []string {
	var out []string
	for _, v := range in {
		out = append(out, v.Value)
	}
	return out
}
