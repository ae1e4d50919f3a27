package zones

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/godbus/dbus/v5"
)

// comparison compares firewalld's runtime configuration with its permanent one.
type comparison struct {
	client        *Client
	permanent     []permanent
	managed       map[string]bool // interfaces whose bindings are put back after a reload
	keepsOnReload bool            // firewalld keeps bindings, direct rules and ipsets over a reload
	zone          string          // the default zone
}

// runtimeChanges lists what a reload of firewalld would lose.
func (c *Client) runtimeChanges(ctx context.Context, objects []permanent, managed []string) ([]string, error) {
	cmp := &comparison{client: c, permanent: objects, managed: make(map[string]bool)}
	for _, iface := range managed {
		cmp.managed[iface] = true
	}
	steps := []func(context.Context) ([]string, error){
		cmp.options, cmp.zones, cmp.policies, cmp.direct, cmp.ipsets, cmp.lockdown,
	}
	var changes []string
	for _, step := range steps {
		found, err := step(ctx)
		if err != nil {
			return nil, fmt.Errorf("comparing firewalld's runtime and permanent configuration: %w", err)
		}
		changes = append(changes, found...)
	}
	return changes, nil
}

// options come first: the later steps depend on what they find.
func (cmp *comparison) options(ctx context.Context) ([]string, error) {
	var props map[string]dbus.Variant
	if err := cmp.client.call(ctx, configPath, propertiesAll, []any{configInterface}, &props); err != nil {
		return nil, wrap("reading options", err)
	}
	flush, _ := props["FlushAllOnReload"].Value().(string)
	cmp.keepsOnReload = flush == "no"
	if err := cmp.client.call(ctx, rootPath, rootInterface+".getDefaultZone", nil, &cmp.zone); err != nil {
		return nil, wrap("reading the default zone", err)
	}
	configured, _ := props["DefaultZone"].Value().(string)
	if configured == "" || configured == cmp.zone {
		return nil, nil
	}
	return []string{fmt.Sprintf("default zone: %s now, %s in firewalld.conf", cmp.zone, configured)}, nil
}

func (cmp *comparison) zones(ctx context.Context) ([]string, error) {
	runtime, err := cmp.runtimeZones(ctx)
	if err != nil {
		return nil, err
	}
	permanent := make(map[string]settings)
	for _, p := range cmp.permanent {
		if p.kind == zoneKind {
			permanent[p.zone()] = permanent[p.zone()].merge(p.settings)
		}
	}
	var changes []string
	for _, name := range sortedKeys(runtime) {
		if permanent[name] == nil {
			changes = append(changes, fmt.Sprintf("zone %s: it is only at runtime", name))
			continue
		}
		now, stored := withoutText(runtime[name]), withoutText(permanent[name])
		now["interfaces"], stored["interfaces"] = cmp.lostBindings(ctx, name, now["interfaces"], stored["interfaces"])
		changes = append(changes, lostSettings("zone "+name, now, stored)...)
	}
	return changes, nil
}

// withoutText returns s without its texts, which a runtime change cannot alter.
func withoutText(s settings) settings {
	return s.without("version", "short", "description")
}

func (cmp *comparison) runtimeZones(ctx context.Context) (map[string]settings, error) {
	c := cmp.client
	var names []string
	if err := c.call(ctx, rootPath, zoneInterface+".getZones", nil, &names); err != nil {
		return nil, wrap("listing zones", err)
	}
	found := make([]settings, len(names))
	err := inParallel(len(names), func(i int) error {
		raw, err := c.zoneSettings(ctx, rootPath, zoneInterface+".getZoneSettings2", rootInterface+".getZoneSettings", []any{names[i]})
		found[i] = settingsOf(raw)
		return wrap("reading zone "+names[i], err)
	})
	return byName(names, found), err
}

func byName(names []string, found []settings) map[string]settings {
	m := make(map[string]settings, len(names))
	for i, n := range names {
		m[n] = found[i]
	}
	return m
}

// lostBindings returns only the bindings that a reload changes for good.
func (cmp *comparison) lostBindings(ctx context.Context, zone string, now, stored []string) (changedNow, changedStored []string) {
	for _, iface := range missingFrom(stored, now) {
		if !cmp.managed[iface] && !cmp.keepsOnReload && !cmp.client.keptByNetworkManager(ctx, iface, zone, cmp.zone) {
			changedNow = append(changedNow, iface)
		}
	}
	for _, iface := range missingFrom(now, stored) {
		if !cmp.managed[iface] {
			changedStored = append(changedStored, iface)
		}
	}
	return changedNow, changedStored
}

func (cmp *comparison) policies(ctx context.Context) ([]string, error) {
	c := cmp.client
	var names []string
	err := c.call(ctx, rootPath, policyInterface+".getPolicies", nil, &names)
	if isUnknownMethod(err) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap("listing policies", err)
	}
	found := make([]settings, len(names))
	err = inParallel(len(names), func(i int) error {
		var raw map[string]dbus.Variant
		err := c.call(ctx, rootPath, policyInterface+".getPolicySettings", []any{names[i]}, &raw)
		found[i] = settingsOf(raw)
		return wrap("reading policy "+names[i], err)
	})
	if err != nil {
		return nil, err
	}
	var changes []string
	runtime := byName(names, found)
	for _, name := range sortedKeys(runtime) {
		i := slices.IndexFunc(cmp.permanent, func(p permanent) bool { return p.kind == policyKind && p.name == name })
		if i < 0 {
			changes = append(changes, fmt.Sprintf("policy %s: it is only at runtime", name))
			continue
		}
		changes = append(changes, lostSettings("policy "+name, withoutText(runtime[name]), withoutText(cmp.permanent[i].settings))...)
	}
	return changes, nil
}

// direct compares the rules that bypass zones. A firewalld built without
// support for them has none to lose.
func (cmp *comparison) direct(ctx context.Context) ([]string, error) {
	if cmp.keepsOnReload {
		return nil, nil
	}
	const iface = busName + ".direct"
	keys := []string{"chain", "rule", "passthrough"}
	runtime := make([][][]any, len(keys))
	for i, method := range []string{".getAllChains", ".getAllRules", ".getAllPassthroughs"} {
		err := cmp.client.call(ctx, rootPath, iface+method, nil, &runtime[i])
		if isUnknownMethod(err) {
			return nil, nil
		}
		if err != nil {
			return nil, wrap("reading direct rules", err)
		}
	}
	var permanent struct{ Chains, Rules, Passthroughs [][]any }
	if err := cmp.client.call(ctx, configPath, configInterface+".direct.getSettings", nil, &permanent); err != nil {
		return nil, wrap("reading permanent direct rules", err)
	}
	now, stored := make(settings), make(settings)
	for i, p := range [][][]any{permanent.Chains, permanent.Rules, permanent.Passthroughs} {
		now[keys[i]], stored[keys[i]] = toSet(runtime[i]), toSet(p)
	}
	return lostSettings("direct", now, stored), nil
}

func (cmp *comparison) ipsets(ctx context.Context) ([]string, error) {
	if cmp.keepsOnReload {
		return nil, nil
	}
	c := cmp.client
	var names []string
	err := c.call(ctx, rootPath, busName+".ipset.getIPSets", nil, &names)
	if isUnknownMethod(err) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap("listing ipsets", err)
	}
	var changes []string
	for _, name := range names {
		var path dbus.ObjectPath
		err := c.call(ctx, configPath, configInterface+".getIPSetByName", []any{name}, &path)
		if hasCode(err, "INVALID_IPSET") {
			changes = append(changes, fmt.Sprintf("ipset %s: it is only at runtime", name))
			continue
		}
		if err != nil {
			return nil, wrap("finding the permanent ipset "+name, err)
		}
		var now, stored ipset
		if err := c.call(ctx, rootPath, busName+".ipset.getIPSetSettings", []any{name}, &now); err != nil {
			return nil, wrap("reading ipset "+name, err)
		}
		if err := c.call(ctx, path, configInterface+".ipset.getSettings", nil, &stored); err != nil {
			return nil, wrap("reading the permanent ipset "+name, err)
		}
		changes = append(changes, lostSettings("ipset "+name, now.settings(), stored.settings())...)
	}
	return changes, nil
}

// ipset is an ipset's settings on the bus. The order of the fields matters.
type ipset struct {
	Version, Short, Description, Type string
	Options                           map[string]string
	Entries                           []string
}

func (i ipset) settings() settings {
	s := settings{"type": toSet(i.Type), "entry": toSet(i.Entries)}
	for key, value := range maps.All(i.Options) {
		s["option"] = append(s["option"], key+"="+value)
	}
	slices.Sort(s["option"])
	return s
}

// lockdown compares the lists of users and programs that may change firewalld;
// newer versions may lack them. firewalld 2.3 has none, and still answers:
// nothing is in force, and only root is in the permanent lists.
func (cmp *comparison) lockdown(ctx context.Context) ([]string, error) {
	var permanent struct {
		Commands, Contexts, Users []string
		UIDs                      []int32
	}
	err := cmp.client.call(ctx, configPath, configInterface+".policies.getLockdownWhitelist", nil, &permanent)
	if isUnknownMethod(err) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap("reading the permanent lockdown lists", err)
	}
	stored := settings{"command": toSet(permanent.Commands), "context": toSet(permanent.Contexts),
		"user": toSet(permanent.Users), "uid": numbers(permanent.UIDs)}
	now := make(settings)
	for key, method := range map[string]string{"command": "Commands", "context": "Contexts", "user": "Users", "uid": "Uids"} {
		var v any
		err := cmp.client.call(ctx, rootPath, busName+".policies.getLockdownWhitelist"+method, nil, &v)
		if err != nil {
			return nil, wrap("reading the lockdown lists", err)
		}
		if uids, ok := v.([]int32); ok {
			now[key] = numbers(uids)
		} else {
			now[key] = toSet(v)
		}
	}
	if len(now["command"])+len(now["context"])+len(now["user"])+len(now["uid"]) == 0 {
		stored["uid"] = slices.DeleteFunc(stored["uid"], func(uid string) bool { return uid == "0" })
	}
	return lostSettings("lockdown", now, stored), nil
}

func numbers(in []int32) []string {
	var out []string
	for _, n := range in {
		out = append(out, fmt.Sprint(n))
	}
	return toSet(out)
}
