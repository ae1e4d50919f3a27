package zones

import "slices"

// Ours are the zones and policies of i that have the names of ours, whoever
// put them there, sorted.
func (i Installed) Ours() []string {
	defs, err := definitions()
	if err != nil { // only for embedded files that cannot be read
		return nil
	}
	var out []string
	for _, d := range defs {
		if (d.kind == zoneKind && slices.Contains(i.Zones, d.name)) || (d.kind == policyKind && slices.Contains(i.Policies, d.name)) {
			out = append(out, d.name)
		}
	}
	slices.Sort(out)
	return out
}
