package binding

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/store"
	"github.com/virtfirewalld/virtfirewalld/zones"
)

// running is a firewalld that has the zone for NAT networks and one of the
// administrator's.
var running = zones.Installed{Running: true, Life: ":1.7", Zones: []string{"libvirt", "public"}}

func nat() Bridge {
	return Bridge{Network: "lab", Name: "virbr0", Iface: "virbr0", Mode: network.ModeNAT}
}

func open() Bridge {
	b := nat()
	b.Mode = network.ModeOpen
	return b
}

// TestWhereABridgeBelongs: by hand, by its network, by its mode, or where another
// program put it.
func TestWhereABridgeBelongs(t *testing.T) {
	none, public := "", "public"
	named := nat()
	named.Zone = "public"
	bare := zones.Installed{Running: true, Zones: []string{"public"}}
	for name, c := range map[string]struct {
		bridge Bridge
		have   zones.Installed
		want   string
		err    error
	}{
		"by its mode":      {nat(), running, "libvirt", nil},
		"by its network":   {named, running, "public", nil},
		"by hand":          {nat().with(State{ByHand: &public}), running, "public", nil},
		"in none, by hand": {named.with(State{ByHand: &none}), running, "", nil},
		"moved":            {nat().with(State{Moved: true, Bound: "trusted"}), running, "trusted", nil},
		"open":             {open(), running, "", nil},
		"not installed":    {nat(), bare, "", zones.ErrZoneMissing{Zone: "libvirt"}},
		"named, unknown":   {named, zones.Installed{Running: true}, "", zones.ErrZoneNotFound{Zone: "public"}},
		"no firewalld":     {nat(), zones.Installed{}, "", nil},
		"named, none":      {named, zones.Installed{}, "", zones.ErrNotRunning},
	} {
		zone, err := c.bridge.want(c.have)
		if zone != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: zone %q, %v; want %q, %v", name, zone, err, c.want, c.err)
		}
	}
}

// TestStrandedBridges: what is said of a bridge that could not enter its zone, and
// whether trying again may help.
func TestStrandedBridges(t *testing.T) {
	named := nat()
	named.Zone = "public"
	for name, c := range map[string]struct {
		bridge Bridge
		err    error
		id     finding.ID
		retry  bool
	}{
		"silence":      {nat(), ErrUnresponsive, finding.FirewalldSilent, true},
		"refused":      {nat(), errors.New("no"), finding.ZoneNotBound, true},
		"zone missing": {nat(), zones.ErrZoneMissing{Zone: "libvirt"}, finding.ZoneMissing, false},
		"zone unknown": {named, zones.ErrZoneNotFound{Zone: "public"}, finding.ZoneMissing, false},
		"no firewalld": {nat(), zones.ErrNotRunning, "", false},
		"named, none":  {named, zones.ErrNotRunning, finding.ZoneNotBound, false},
		"open":         {open(), errors.New("no"), "", false},
	} {
		s := c.bridge.kept("", fmt.Errorf("binding: %w", c.err))
		if s.Problem.ID != c.id || s.Retry != c.retry {
			t.Errorf("%s: %q, retry %v; want %q, %v", name, s.Problem.ID, s.Retry, c.id, c.retry)
		}
	}
}

// TestWhatAStartFinds: a bridge in another zone than the service left it in was
// moved by somebody, unless nothing is known of it; one in none was not, since a
// reload of firewalld's looks the same.
func TestWhatAStartFinds(t *testing.T) {
	record := func(zone string, edit func(*store.ZoneRecord)) *store.ZoneRecord {
		b := nat()
		b.State.Bound, b.State.Life = zone, running.Life
		r, _ := b.record()
		if edit != nil {
			edit(&r)
		}
		return &r
	}
	for name, c := range map[string]struct {
		last  *store.ZoneRecord
		zone  string
		moved bool
	}{
		"where it belongs":          {record("libvirt", nil), "libvirt", false},
		"elsewhere":                 {record("libvirt", nil), "public", true},
		"elsewhere, no record":      {nil, "public", false},
		"elsewhere, request failed": {record("libvirt", func(r *store.ZoneRecord) { r.Unsure = true }), "public", false},
		"elsewhere, record lost":    {&store.ZoneRecord{Lost: true}, "public", true},
		"in none":                   {record("libvirt", nil), "", false},
		"still in none":             {record("", func(r *store.ZoneRecord) { r.Moved = true }), "", true},
		"in none, other firewalld":  {record("", func(r *store.ZoneRecord) { r.Moved, r.Firewalld = true, ":1.2" }), "", false},
		"other bridge":              {record("libvirt", func(r *store.ZoneRecord) { r.Bridge = "virbr1" }), "public", false},
		"other mode":                {record("libvirt", func(r *store.ZoneRecord) { r.Mode = "route" }), "public", false},
	} {
		b := nat().with(nat().Recall(c.last))
		want := State{Bound: c.zone, Life: running.Life, Moved: c.moved}
		if diff := cmp.Diff(want, b.found(c.zone, running)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestLeavingForGood: a bridge is taken out of its zone where no network governs
// it there after the change.
func TestLeavingForGood(t *testing.T) {
	bound := State{Bound: "libvirt"}
	in := func(b Bridge) *Bridge { b.State = bound; return &b }
	other := nat()
	other.Name, other.Iface = "virbr1", "virbr1"
	outside := nat()
	unseen := nat().with(State{Unseen: true})
	for name, c := range map[string]struct {
		change Change
		leaves bool
	}{
		"removed":            {Change{Old: in(nat())}, true},
		"removed, unseen":    {Change{Old: &unseen}, true},
		"removed, in none":   {Change{Old: &outside}, false},
		"removed, libvirt's": {Change{Old: in(nat()), Stays: true}, false},
		"new":                {Change{Next: in(nat())}, false},
		"updated":            {Change{Old: in(nat()), Next: in(nat())}, false},
		"other bridge":       {Change{Old: in(nat()), Next: in(other)}, true},
		"opened":             {Change{Old: in(nat()), Next: in(open())}, true},
	} {
		if got := c.change.leaves(); got != c.leaves {
			t.Errorf("%s: leaves is %v", name, got)
		}
	}
}
