package zones

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Removal holds the options of Remove.
type Removal struct {
	Force  bool // lose runtime changes of others
	Unbind bool // take interfaces out of the zones first
}

// Remove takes out of firewalld's permanent configuration the zones and
// policies that Install put there and nobody changed since, reloads firewalld
// once if there were any, and returns their names.
//
// If interfaces are bound to such a zone, Remove returns ErrInUse, unless Unbind
// is set, which takes them out first. If somebody else's policy names the zone,
// it always does. Runtime changes are treated as by Install. A call that fails
// changed nothing.
func (c *Client) Remove(ctx context.Context, o Removal, managed []string) ([]string, error) {
	c.changing.Lock()
	defer c.changing.Unlock()
	removed, err := c.removeOurs(ctx, o, managed)
	if err != nil {
		return nil, fmt.Errorf("removing zones: %w", err)
	}
	if len(removed) > 0 {
		c.log.Info("removed firewalld zones and policies, and reloaded firewalld", "names", removed)
	}
	return removed, nil
}

func (c *Client) removeOurs(ctx context.Context, o Removal, managed []string) ([]string, error) {
	objects, err := c.permanentObjects(ctx)
	if err != nil {
		return nil, err
	}
	ours, err := findOurs(objects)
	if err != nil || len(ours) == 0 {
		return nil, err
	}
	bound, err := c.boundTo(ctx, ours)
	if err != nil {
		return nil, err
	}
	policies := policiesNaming(objects, ours)
	if len(policies) > 0 || (len(bound.all) > 0 && !o.Unbind) {
		return nil, ErrInUse{Interfaces: bound.all, Policies: policies}
	}
	if !o.Force {
		excused := append(slices.Clone(managed), sortedKeys(bound.all)...)
		if err := c.refuseRuntimeChanges(ctx, objects, excused); err != nil {
			return nil, err
		}
	}
	if err := c.unbindAndRemove(ctx, ours, bound.atRuntime); err != nil {
		return nil, err
	}
	var removed []string
	for _, p := range ours {
		removed = append(removed, p.name)
	}
	slices.Sort(removed)
	return removed, nil
}

// findOurs returns what Install made, policies first: they name the zones, and
// firewalld refuses a policy that names a zone which does not exist.
func findOurs(objects []permanent) ([]permanent, error) {
	defs, err := definitions()
	if err != nil {
		return nil, err
	}
	var ours []permanent
	for _, d := range slices.Backward(defs) {
		for _, p := range objects {
			if p.ours(d) {
				ours = append(ours, p)
			}
		}
	}
	return withoutNamedZones(defs, objects, ours), nil
}

// withoutNamedZones leaves out the zones that are named by a policy which has
// one of our names and stays, since somebody else installed or changed it.
func withoutNamedZones(defs []definition, objects, ours []permanent) []permanent {
	return slices.DeleteFunc(ours, func(z permanent) bool {
		return z.kind == zoneKind && slices.ContainsFunc(objects, func(p permanent) bool {
			isOurName := slices.ContainsFunc(defs, func(d definition) bool { return d.kind == p.kind && d.name == p.name })
			stays := !slices.ContainsFunc(ours, func(o permanent) bool { return o.path == p.path })
			return p.kind == policyKind && isOurName && stays && p.namesZone(z.name)
		})
	})
}

// namesZone reports whether a policy has the zone as its ingress or egress zone.
func (p permanent) namesZone(zone string) bool {
	return slices.Contains(p.settings["ingress_zones"], zone) || slices.Contains(p.settings["egress_zones"], zone)
}

func policiesNaming(objects, ours []permanent) []string {
	var names []string
	for _, p := range objects {
		removed := slices.ContainsFunc(ours, func(o permanent) bool { return o.path == p.path })
		named := slices.ContainsFunc(ours, func(o permanent) bool { return o.kind == zoneKind && p.namesZone(o.name) })
		if p.kind == policyKind && !removed && named {
			names = append(names, p.name)
		}
	}
	return names
}

// bindings are interfaces with their zones.
type bindings struct {
	atRuntime map[string]string
	all       map[string]string // permanent ones too
}

func (c *Client) boundTo(ctx context.Context, ours []permanent) (bindings, error) {
	b := bindings{atRuntime: make(map[string]string), all: make(map[string]string)}
	now, err := c.Interfaces(ctx)
	if err != nil {
		return b, err
	}
	for _, p := range ours {
		if p.kind != zoneKind {
			continue
		}
		for _, iface := range p.settings["interfaces"] {
			b.all[iface] = p.name
		}
		for iface, zone := range now {
			if zone == p.name {
				b.atRuntime[iface], b.all[iface] = zone, zone
			}
		}
	}
	return b, nil
}

func (c *Client) unbindAndRemove(ctx context.Context, ours []permanent, bound map[string]string) error {
	var unbound []Binding
	for _, iface := range sortedKeys(bound) {
		unbound = append(unbound, Binding{iface, bound[iface]})
		if err := c.Unbind(ctx, bound[iface], iface); err != nil {
			return c.undoRemove(ctx, nil, unbound, err)
		}
	}
	for i, p := range ours {
		if err := c.remove(ctx, p); err != nil {
			return c.undoRemove(ctx, ours[:i+1], unbound, err)
		}
	}
	if err := c.reloadFirewalld(ctx); err != nil {
		return c.undoRemove(ctx, ours, unbound, err)
	}
	return nil
}

// undoRemove restores what a failed removal took out, and returns the cause,
// joined with the errors of the restoring.
func (c *Client) undoRemove(ctx context.Context, removed []permanent, unbound []Binding, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	errs := []error{cause}
	for _, p := range slices.Backward(removed) { // zones before the policies that name them
		if err := c.restore(ctx, p); err != nil && !hasCode(err, "NAME_CONFLICT") {
			errs = append(errs, err)
		}
	}
	have, err := c.readInstalled(ctx)
	for _, p := range removed {
		if err == nil && !slices.Contains(slices.Concat(have.Zones, have.Policies), p.name) {
			// firewalld did reload, although no answer came.
			err = c.reloadFirewalld(ctx)
			break
		}
	}
	errs = append(errs, err)
	return errors.Join(append(errs, c.BindAll(ctx, unbound)...)...)
}
