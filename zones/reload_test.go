package zones_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/zones"
)

// Each change is one that a reload would lose; a call that fails because of it
// must leave everything as it was.
func TestRuntimeChangesAreNotLost(t *testing.T) {
	t.Parallel()
	f := newFirewalld(t)
	changes := []struct {
		do, undo []string
		want     string
	}{
		{[]string{"--zone=public", "--add-service=http"}, []string{"--zone=public", "--remove-service=http"},
			"zone public: service http (only at runtime)"},
		{[]string{"--zone=public", "--remove-service=ssh"}, []string{"--zone=public", "--add-service=ssh"},
			"zone public: service ssh (permanent, and not in force now)"},
		{[]string{"--zone=dmz", "--add-port=8080/tcp"}, []string{"--zone=dmz", "--remove-port=8080/tcp"},
			"zone dmz: port 8080/tcp (only at runtime)"},
		{[]string{"--zone=dmz", "--add-forward-port=port=80:proto=tcp:toport=81"}, []string{"--zone=dmz", "--remove-forward-port=port=80:proto=tcp:toport=81"},
			"zone dmz: forward port 80 tcp 81 (only at runtime)"},
		{[]string{"--zone=dmz", "--add-masquerade"}, []string{"--zone=dmz", "--remove-masquerade"},
			"zone dmz: masquerade on (only at runtime)"},
		{[]string{"--zone=dmz", "--add-rich-rule=rule priority=5 drop"}, []string{"--zone=dmz", "--remove-rich-rule=rule priority=5 drop"},
			`zone dmz: rich rule rule priority="5" drop (only at runtime)`},
		{[]string{"--zone=work", "--add-interface=eth7"}, []string{"--zone=work", "--remove-interface=eth7"},
			"zone work: interface eth7 (only at runtime)"},
		{[]string{"--zone=work", "--add-source=192.0.2.0/24"}, []string{"--zone=work", "--remove-source=192.0.2.0/24"},
			"zone work: source 192.0.2.0/24 (only at runtime)"},
		{[]string{"--policy=allow-host-ipv6", "--add-service=http"}, []string{"--policy=allow-host-ipv6", "--remove-service=http"},
			"policy allow-host-ipv6: service http (only at runtime)"},
		{[]string{"--direct", "--add-rule", "ipv4", "filter", "INPUT", "0", "-p", "tcp", "-j", "ACCEPT"},
			[]string{"--direct", "--remove-rule", "ipv4", "filter", "INPUT", "0", "-p", "tcp", "-j", "ACCEPT"},
			"direct: rule ipv4 filter INPUT 0 -p tcp -j ACCEPT (only at runtime)"},
	}
	lockdown := []string{"--add-lockdown-whitelist-uid=1234"}
	f.cmd(lockdown...) // firewalld 2.3 takes it and forgets it
	if strings.Contains(f.cmd("--list-lockdown-whitelist-uids"), "1234") {
		changes = append(changes, struct {
			do, undo []string
			want     string
		}{lockdown, []string{"--remove-lockdown-whitelist-uid=1234"}, "lockdown: uid 1234 (only at runtime)"})
		f.cmd("--remove-lockdown-whitelist-uid=1234")
	}
	for _, tt := range changes {
		f.cmd(tt.do...)
		before := f.state()
		_, err := f.Install(t.Context(), false, nil)
		var refused zones.ErrRuntimeChanges
		if !errors.As(err, &refused) {
			t.Errorf("after %q: %v", tt.do, err)
		} else if diff := cmp.Diff([]string{tt.want}, refused.Changes); diff != "" {
			t.Errorf("after %q: %s", tt.do, diff)
		}
		if diff := cmp.Diff(before, f.state()); diff != "" {
			t.Errorf("after %q the failed call changed: %s", tt.do, diff)
		}
		f.cmd(tt.undo...)
	}
	// Nothing is left to lose, so that the same call works.
	f.install()
	checkFacts(t, f)
}

func TestInstallWithForce(t *testing.T) {
	t.Parallel()
	f := newFirewalld(t)
	f.cmd("--zone=public", "--add-service=http")
	installed, err := f.Install(t.Context(), true, nil)
	if err != nil || len(installed) != len(allOurs) {
		t.Errorf("Install = %q, %v", installed, err)
	}
	if strings.Contains(f.cmd("--zone=public", "--list-services"), "http") {
		t.Error("firewalld did not reload")
	}
}

func TestBindingsOfManagedBridgesDoNotCount(t *testing.T) {
	t.Parallel()
	f := newFirewalld(t)
	f.cmd("--zone=trusted", "--add-interface=virbr0")
	f.cmd("--zone=trusted", "--add-interface=docker0")
	_, err := f.Install(t.Context(), false, []string{"virbr0"})
	var changes zones.ErrRuntimeChanges
	if !errors.As(err, &changes) || !slices.Equal(changes.Changes, []string{"zone trusted: interface docker0 (only at runtime)"}) {
		t.Errorf("Install: %v", err)
	}
	if _, err := f.Install(t.Context(), false, []string{"virbr0", "docker0"}); err != nil {
		t.Error(err)
	}
}

// With FlushAllOnReload=no firewalld itself keeps bindings and direct rules.
func TestWhatFirewalldKeepsDoesNotCount(t *testing.T) {
	t.Parallel()
	f := newHost(t)
	f.Must("sed", "-i", "s/^FlushAllOnReload=.*/FlushAllOnReload=no/", "/etc/firewalld/firewalld.conf")
	f.Firewalld("nftables")
	f.cmd("--zone=work", "--add-interface=eth7")
	f.cmd("--direct", "--add-rule", "ipv4", "filter", "INPUT", "0", "-j", "ACCEPT")
	f.install()
	f.wantZone("eth7", "work")
	if rules := f.cmd("--direct", "--get-all-rules"); !strings.Contains(rules, "ACCEPT") {
		t.Errorf("direct rules: %q", rules)
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	f := newFirewalld(t)
	ctx := t.Context()
	pristine := f.state()
	f.install()
	if _, err := f.Bind(ctx, "virbr0", "libvirt"); err != nil {
		t.Fatal(err)
	}
	before := f.state()
	_, err := f.Remove(ctx, zones.Removal{}, []string{"virbr0"})
	var used zones.ErrInUse
	if !errors.As(err, &used) || !cmp.Equal(used.Interfaces, map[string]string{"virbr0": "libvirt"}) {
		t.Errorf("with a bound interface: %v", err)
	}
	f.cmd("--zone=public", "--add-service=http")
	if _, err := f.Remove(ctx, zones.Removal{Unbind: true}, nil); !errors.As(err, new(zones.ErrRuntimeChanges)) {
		t.Errorf("with a runtime change: %v", err)
	}
	f.cmd("--zone=public", "--remove-service=http")
	if diff := cmp.Diff(before, f.state()); diff != "" {
		t.Errorf("the failed calls changed: %s", diff)
	}

	removed, err := f.Remove(ctx, zones.Removal{Unbind: true}, nil)
	if diff := cmp.Diff(slices.Sorted(slices.Values(allOurs)), removed); diff != "" || err != nil {
		t.Errorf("Remove: %v, %s", err, diff)
	}
	if again, err := f.Remove(ctx, zones.Removal{Unbind: true}, nil); err != nil || len(again) != 0 {
		t.Errorf("Remove again = %q, %v", again, err)
	}
	f.wantZone("virbr0", "")
	f.install()
	f.cmd("--zone=public", "--add-service=http")
	if removed, err := f.Remove(ctx, zones.Removal{Force: true}, nil); err != nil || len(removed) != len(allOurs) {
		t.Errorf("Remove with force = %q, %v", removed, err)
	}
	if diff := cmp.Diff(pristine, f.state()); diff != "" {
		t.Errorf("it is not as before the installation: %s", diff)
	}
}

func TestRemoveLeavesWhatWasChanged(t *testing.T) {
	t.Parallel()
	f := newFirewalld(t)
	f.install()
	f.cmd("--permanent", "--zone=libvirt", "--add-service=http")
	f.cmd("--permanent", "--policy=libvirt-routed-in", "--add-service=http")
	f.cmd("--reload")
	removed, err := f.Remove(t.Context(), zones.Removal{Unbind: true}, nil)
	// The zone libvirt-routed stays as well: the changed policy names it.
	if diff := cmp.Diff([]string{"libvirt-routed-out", "libvirt-to-host"}, removed); diff != "" || err != nil {
		t.Errorf("Remove: %v, %s", err, diff)
	}
}

func TestRemoveRefusesWhatOthersName(t *testing.T) {
	t.Parallel()
	f := newFirewalld(t)
	f.install()
	f.cmd("--permanent", "--new-policy=mine")
	f.cmd("--permanent", "--policy=mine", "--add-ingress-zone=libvirt")
	f.cmd("--permanent", "--policy=mine", "--add-egress-zone=HOST")
	f.cmd("--reload")
	before := f.state()
	_, err := f.Remove(t.Context(), zones.Removal{Unbind: true}, nil)
	var used zones.ErrInUse
	if !errors.As(err, &used) || !slices.Equal(used.Policies, []string{"mine"}) {
		t.Errorf("Remove: %v", err)
	}
	if diff := cmp.Diff(before, f.state()); diff != "" {
		t.Errorf("the failed call changed: %s", diff)
	}
}

// libvirt's package may come after us: its files show again.
func TestRemoveUncoversTheFilesOfAPackage(t *testing.T) {
	t.Parallel()
	f := newFirewalld(t)
	f.install()
	f.putFiles("/usr/lib/firewalld")
	f.cmd("--reload")
	removed, err := f.Remove(t.Context(), zones.Removal{}, nil)
	if err != nil || len(removed) != len(allOurs) {
		t.Errorf("Remove = %q, %v", removed, err)
	}
	checkFacts(t, f)
	if left := f.Must("sh", "-c", "ls /etc/firewalld/zones /etc/firewalld/policies"); strings.Contains(left, "libvirt.xml\n") {
		t.Errorf("left: %s", left)
	}
}

// firewalld refuses to reload with a broken file, even of somebody else's: what
// was added must be removed again.
func TestInstallTakesBackWhatItAddedWhenTheReloadFails(t *testing.T) {
	t.Parallel()
	f := newFirewalld(t)
	broken := []byte(`<zone target="NOSUCH"><short>broken</short></zone>`)
	if err := f.WriteFile("/etc/firewalld/zones/broken.xml", broken, 0o644); err != nil {
		t.Fatal(err)
	}
	before := f.state()
	if _, err := f.Install(t.Context(), true, nil); err == nil || errors.Is(err, zones.ErrNotRunning) {
		t.Errorf("Install: %v", err)
	}
	if diff := cmp.Diff(before, f.state()); diff != "" {
		t.Errorf("the failed call changed: %s", diff)
	}
}

// The same for a removal: all of it is put back, in force and bound.
func TestRemovePutsBackWhatItTookWhenTheReloadFails(t *testing.T) {
	t.Parallel()
	f := newFirewalld(t)
	f.install()
	if _, err := f.Bind(t.Context(), "virbr0", "libvirt"); err != nil {
		t.Fatal(err)
	}
	broken := []byte(`<zone target="NOSUCH"><short>broken</short></zone>`)
	if err := f.WriteFile("/etc/firewalld/zones/broken.xml", broken, 0o644); err != nil {
		t.Fatal(err)
	}
	before := f.state()
	if _, err := f.Remove(t.Context(), zones.Removal{Unbind: true}, nil); err == nil || errors.Is(err, zones.ErrNotRunning) {
		t.Errorf("Remove: %v", err)
	}
	if diff := cmp.Diff(before, f.state()); diff != "" {
		t.Errorf("the failed call changed: %s", diff)
	}
	f.Must("rm", "/etc/firewalld/zones/broken.xml")
	if removed, err := f.Remove(t.Context(), zones.Removal{Unbind: true}, nil); err != nil || len(removed) != len(allOurs) {
		t.Errorf("Remove, mended = %q, %v", removed, err)
	}
}

func TestEntriesOfIPSetsAreNotLost(t *testing.T) {
	t.Parallel()
	f := newFirewalld(t)
	f.cmd("--permanent", "--new-ipset=guests", "--type=hash:ip", "--option=family=inet")
	f.cmd("--permanent", "--ipset=guests", "--add-entry=192.0.2.1")
	f.cmd("--reload")
	f.cmd("--ipset=guests", "--add-entry=192.0.2.2")
	_, err := f.Install(t.Context(), false, nil)
	var changes zones.ErrRuntimeChanges
	if !errors.As(err, &changes) || !slices.Equal(changes.Changes, []string{"ipset guests: entry 192.0.2.2 (only at runtime)"}) {
		t.Errorf("Install: %v", err)
	}
}
