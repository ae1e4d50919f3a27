package zones

import (
	"context"
	"strings"

	"github.com/godbus/dbus/v5"
)

// permanent is a zone or policy in firewalld's permanent configuration.
type permanent struct {
	kind     kind
	name     string
	path     dbus.ObjectPath
	builtin  bool // a file in /usr/lib/firewalld
	shadows  bool // a file in /etc that hides one in /usr/lib
	raw      map[string]dbus.Variant
	settings settings
}

func (k kind) configInterface() string {
	if k == zoneKind {
		return configZoneInterface
	}
	return configPolicyInterface
}

// permanentObjects returns all zones and policies of the permanent configuration.
func (c *Client) permanentObjects(ctx context.Context) ([]permanent, error) {
	var zones, policies []dbus.ObjectPath
	err := c.call(ctx, configPath, configInterface+".listZones", nil, &zones)
	if err != nil {
		return nil, wrap("listing permanent zones", err)
	}
	err = c.call(ctx, configPath, configInterface+".listPolicies", nil, &policies)
	if err != nil && !isUnknownMethod(err) {
		return nil, wrap("listing permanent policies", err)
	}
	objects := make([]permanent, 0, len(zones)+len(policies))
	for _, p := range zones {
		objects = append(objects, permanent{kind: zoneKind, path: p})
	}
	for _, p := range policies {
		objects = append(objects, permanent{kind: policyKind, path: p})
	}
	err = inParallel(len(objects), func(i int) error { return c.readPermanent(ctx, &objects[i]) })
	return objects, err
}

func (c *Client) readPermanent(ctx context.Context, p *permanent) error {
	iface := p.kind.configInterface()
	var props map[string]dbus.Variant
	if err := c.call(ctx, p.path, propertiesAll, []any{iface}, &props); err != nil {
		return wrap("reading a permanent "+string(p.kind), err)
	}
	p.name, _ = props["name"].Value().(string)
	p.builtin, _ = props["builtin"].Value().(bool)
	fromScratch, known := props["default"].Value().(bool)
	p.shadows = known && !fromScratch && !p.builtin
	var err error
	if p.kind == zoneKind {
		p.raw, err = c.zoneSettings(ctx, p.path, iface+".getSettings2", iface+".getSettings", nil)
	} else {
		err = c.call(ctx, p.path, iface+".getSettings", nil, &p.raw)
	}
	p.settings = settingsOf(p.raw)
	return wrap("reading the permanent "+string(p.kind)+" "+p.name, err)
}

// zoneSettings reads a zone as a dictionary, or before firewalld 0.9 as a tuple.
func (c *Client) zoneSettings(ctx context.Context, path dbus.ObjectPath, method, old string, args []any) (map[string]dbus.Variant, error) {
	var raw map[string]dbus.Variant
	err := c.call(ctx, path, method, args, &raw)
	if !isUnknownMethod(err) {
		return raw, err
	}
	var tuple zoneTuple
	if err := c.call(ctx, path, old, args, &tuple); err != nil {
		return nil, err
	}
	return tuple.variants(), nil
}

// add puts a zone or policy into the permanent configuration.
func (c *Client) add(ctx context.Context, k kind, name string, raw map[string]dbus.Variant) (dbus.ObjectPath, error) {
	var path dbus.ObjectPath
	if k == policyKind {
		err := c.call(ctx, configPath, configInterface+".addPolicy", []any{name, raw}, &path)
		return path, wrap("adding policy "+name, err)
	}
	err := c.call(ctx, configPath, configInterface+".addZone2", []any{name, raw}, &path)
	if isUnknownMethod(err) {
		err = c.call(ctx, configPath, configInterface+".addZone", []any{name, tupleOf(raw)}, &path)
	}
	return path, wrap("adding zone "+name, err)
}

// remove removes a file in /etc from the permanent configuration. One that it
// hides in /usr/lib comes into effect again.
func (c *Client) remove(ctx context.Context, p permanent) error {
	method := ".remove"
	if p.shadows {
		method = ".loadDefaults"
	}
	err := c.call(ctx, p.path, p.kind.configInterface()+method, nil)
	return wrap("removing "+string(p.kind)+" "+p.name, err)
}

// restore undoes remove.
func (c *Client) restore(ctx context.Context, p permanent) error {
	if !p.shadows {
		_, err := c.add(ctx, p.kind, p.name, p.raw)
		return err
	}
	method := ".update2"
	if p.kind == policyKind {
		method = ".update"
	}
	err := c.call(ctx, p.path, p.kind.configInterface()+method, []any{p.raw})
	return wrap("restoring "+string(p.kind)+" "+p.name, err)
}

// ours reports whether the object is what Install made of d, unchanged except
// for interfaces that somebody bound to it.
func (p permanent) ours(d definition) bool {
	return p.kind == d.kind && p.name == d.name && !p.builtin &&
		p.settings.without("interfaces").equal(settingsOf(d.variants()))
}

// zone returns the name of the zone that a part, zone/part, is combined into.
func (p permanent) zone() string {
	zone, _, _ := strings.Cut(p.name, "/")
	return zone
}
