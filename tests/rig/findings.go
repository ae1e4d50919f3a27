package rig

import (
	"fmt"
	"strings"

	godbus "github.com/godbus/dbus/v5"
)

// Findings are what the service's Diagnose answers.
type Findings struct{ r *Rig }

// All returns every finding as "id network: summary; remedy".
func (f *Findings) All() []string {
	f.r.T.Helper()
	var all []map[string]godbus.Variant
	f.r.OK(f.r.Manager("Diagnose"), &all)
	out := make([]string, len(all))
	for i, f := range all {
		out[i] = fmt.Sprintf("%s %s: %s; %s", f["Id"].Value(), f["Network"].Value(), f["Summary"].Value(), f["Remedy"].Value())
	}
	return out
}

// Of returns the first finding of a kind; "" for none.
func (f *Findings) Of(id string) string {
	f.r.T.Helper()
	for _, finding := range f.All() {
		if strings.HasPrefix(finding, id+" ") {
			return finding
		}
	}
	return ""
}

// Await waits until Diagnose reports a finding of a kind, and checks that it
// names something.
func (f *Findings) Await(id, of string) {
	f.r.T.Helper()
	f.r.Announce("state_code=" + id)
	f.r.Until("Diagnose reports "+id, func() bool { return f.Of(id) != "" })
	if finding := f.Of(id); !strings.Contains(finding, of) {
		f.r.T.Errorf("the finding does not name %s: %s", of, finding)
	}
}

// AwaitNone waits until Diagnose reports no finding of a kind any more.
func (f *Findings) AwaitNone(id string) {
	f.r.T.Helper()
	f.r.Until("Diagnose no longer reports "+id, func() bool { return f.Of(id) == "" })
}
