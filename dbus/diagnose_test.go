package dbus

import (
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
)

func TestDiagnose(t *testing.T) {
	r := newRig(t)
	var answer []map[string]godbus.Variant
	must(t, r.call("Diagnose").Store(&answer))
	got := make([]map[string]string, len(answer))
	for i, f := range answer {
		got[i] = map[string]string{}
		for key, value := range f {
			got[i][key] = value.Value().(string)
		}
	}
	want := []map[string]string{{"Id": "forwarding-off", "Severity": "warning", "Network": "lab",
		"Summary": "forwarding is off\uFFFD", "Evidence": "", "Remedy": "reapply"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
