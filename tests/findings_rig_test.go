package tests

import (
	"fmt"
	"strings"

	godbus "github.com/godbus/dbus/v5"
)

// findings are what Diagnose answers, each as "id network: summary; remedy".
func (r *rig) findings() []string {
	r.t.Helper()
	var all []map[string]godbus.Variant
	r.must(r.Manager("Diagnose"), &all)
	out := make([]string, len(all))
	for i, f := range all {
		out[i] = fmt.Sprintf("%s %s: %s; %s", f["Id"].Value(), f["Network"].Value(), f["Summary"].Value(), f["Remedy"].Value())
	}
	return out
}

func (r *rig) found(id string) string {
	r.t.Helper()
	for _, f := range r.findings() {
		if strings.HasPrefix(f, id+" ") {
			return f
		}
	}
	return ""
}

// awaitFinding waits until Diagnose reports a finding of that kind, and checks
// that it speaks of something.
func (r *rig) awaitFinding(id, of string) {
	r.t.Helper()
	r.Announce("state_code=" + id)
	r.until("Diagnose reports "+id, func() bool { return r.found(id) != "" })
	if f := r.found(id); !strings.Contains(f, of) {
		r.t.Errorf("the finding does not name %s: %s", of, f)
	}
}

// awaitNoFinding waits until Diagnose reports none of that kind any more.
func (r *rig) awaitNoFinding(id string) {
	r.t.Helper()
	r.until("Diagnose no longer reports "+id, func() bool { return r.found(id) == "" })
}
