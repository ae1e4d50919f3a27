package zones

import (
	"errors"
	"slices"
	"testing"
)

func TestChoose(t *testing.T) {
	none := Installed{}
	bare := Installed{Running: true, Zones: []string{"public", "trusted"}}
	old := Installed{Running: true, Zones: []string{"libvirt", "libvirt-routed", "public"}}
	full := Installed{Running: true, Zones: []string{"libvirt", "libvirt-routed", "public"},
		Policies: []string{"allow-host-ipv6", "libvirt-routed-in", "libvirt-routed-out", "libvirt-to-host"}}
	noRouted := Installed{Running: true, Zones: []string{"libvirt"}, Policies: full.Policies}
	onlyRouted := Installed{Running: true, Zones: []string{"libvirt-routed"}, Policies: full.Policies}

	for _, tt := range []struct {
		name, want, mode string
		have             Installed
		zone             string
		err              error
	}{
		{"nat", "", "nat", full, "libvirt", nil},
		{"isolated goes where nat does", "", "isolated", full, "libvirt", nil},
		{"route", "", "route", full, "libvirt-routed", nil},
		{"route without policies", "", "route", old, "libvirt", nil},
		{"route without the routed zone", "", "route", noRouted, "libvirt", nil},
		{"nat with the routed zone alone", "", "nat", onlyRouted, "", ErrZoneMissing{"libvirt"}},
		{"route with the routed zone alone", "", "route", onlyRouted, "libvirt-routed", nil},
		{"open", "", "open", full, "", nil},
		{"open on a bare firewalld", "", "open", bare, "", nil},
		{"open with a zone", "public", "open", full, "public", nil},
		{"nat with a zone", "public", "nat", full, "public", nil},
		{"a zone on a bare firewalld", "public", "nat", bare, "public", nil},
		{"route with a zone leaves the policies", "public", "route", full, "public", nil},
		{"unknown zone", "dmz", "nat", full, "", ErrZoneNotFound{"dmz"}},
		{"unknown zone, open", "dmz", "open", full, "", ErrZoneNotFound{"dmz"}},
		{"nat on a bare firewalld", "", "nat", bare, "", ErrZoneMissing{"libvirt"}},
		{"route on a bare firewalld", "", "route", bare, "", ErrZoneMissing{"libvirt"}},
		{"isolated on a bare firewalld", "", "isolated", bare, "", ErrZoneMissing{"libvirt"}},
		{"no firewalld", "", "nat", none, "", nil},
		{"no firewalld, route", "", "route", none, "", nil},
		{"no firewalld, open", "", "open", none, "", nil},
		{"a zone without firewalld", "libvirt", "nat", none, "", ErrNotRunning},
		{"a zone without firewalld, open", "public", "open", none, "", ErrNotRunning},
	} {
		t.Run(tt.name, func(t *testing.T) {
			zone, err := Choose(tt.want, tt.mode, tt.have)
			if zone != tt.zone || !errors.Is(err, tt.err) {
				t.Errorf("Choose(%q, %q) = %q, %v; want %q, %v", tt.want, tt.mode, zone, err, tt.zone, tt.err)
			}
		})
	}
}

func TestOursAreTheNamesInForce(t *testing.T) {
	have := Installed{Running: true, Zones: []string{"public", "libvirt", "libvirt-to-host"},
		Policies: []string{"allow-host-ipv6", "libvirt-routed-out", "libvirt-routed"}}
	want := []string{"libvirt", "libvirt-routed-out"}
	if got := have.Ours(); !slices.Equal(got, want) {
		t.Errorf("Ours = %q, want %q", got, want)
	}
}
