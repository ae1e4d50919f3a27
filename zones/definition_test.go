package zones

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFilesAreThoseOfLibvirt(t *testing.T) {
	var got []string
	err := fs.WalkDir(Files(), ".", func(path string, e fs.DirEntry, err error) error {
		if !e.IsDir() {
			got = append(got, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"policies/libvirt-routed-in.xml", "policies/libvirt-routed-out.xml", "policies/libvirt-to-host.xml",
		"zones/libvirt-routed.xml", "zones/libvirt.xml",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDefinitionsHaveTheFacts(t *testing.T) {
	services := []string{"dhcp", "dhcpv6", "dns", "ssh", "tftp"}
	protocols := []string{"icmp", "ipv6-icmp"}
	want := map[string]settings{
		"libvirt": {"target": {"ACCEPT"}, "services": services, "protocols": protocols,
			"rules_str": {`rule priority="32767" reject`}},
		"libvirt-routed": {"target": {"default"}},
		"libvirt-to-host": {"target": {"REJECT"}, "services": services, "protocols": protocols,
			"ingress_zones": {"libvirt-routed"}, "egress_zones": {"HOST"}, "priority": {"-1"}},
		"libvirt-routed-out": {"target": {"ACCEPT"}, "ingress_zones": {"libvirt-routed"}, "egress_zones": {"ANY"},
			"priority": {"-1"}},
		"libvirt-routed-in": {"target": {"ACCEPT"}, "ingress_zones": {"ANY"}, "egress_zones": {"libvirt-routed"},
			"priority": {"-1"}},
	}
	defs, err := definitions()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]settings)
	for _, d := range defs {
		s := settingsOf(d.variants())
		if len(s["short"]) == 0 || len(s["description"]) == 0 {
			t.Errorf("%s tells users nothing about itself", d.name)
		}
		got[d.name] = withoutText(s)
		// firewalld's limit for names that become chains.
		if len(d.name) > 18 {
			t.Errorf("%s: the name has %d characters, firewalld takes 18", d.name, len(d.name))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind kind
		text string
		want string
	}{
		{"policy for zone", zoneKind, `<policy target="ACCEPT"/>`, "it is a policy"},
		{"port", zoneKind, `<zone><port port="1" protocol="tcp"/></zone>`, "no meaning for the element port"},
		{"other rule", zoneKind, `<zone><rule priority="1"><accept/></rule></zone>`, "no meaning for a rule"},
		{"narrow rule", zoneKind, `<zone><rule><source address="::1"/><reject/></rule></zone>`, "no meaning for a rule"},
		{"not XML", policyKind, `policy`, "EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(tt.kind, []byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}
