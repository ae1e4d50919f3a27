package zones

import "slices"

// Ours returns the zones and policies of i that have the names of our own
// definitions, whoever installed them, sorted.
func (i Installed) Ours() []string {
	defs, err := definitions()
	if err != nil { // impossible: the embedded files are valid
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
