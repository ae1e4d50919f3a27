package network

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type values = map[string]any

func TestFromSettingsDefaults(t *testing.T) {
	n, err := FromSettings("n", values{"Bridge": "virbr0"})
	if err != nil {
		t.Fatal(err)
	}
	want := Network{Name: "n", UUID: deriveUUID("n"), Bridge: "virbr0", Mode: ModeNAT, DHCP: true, DNS: true}
	if diff := cmp.Diff(want, n, cmpAddr); diff != "" {
		t.Error(diff)
	}
}

func TestFromSettings(t *testing.T) {
	in := values{
		"Bridge": "virbr7", "ForwardMode": "nat", "ForwardDevices": []string{"eth0", "wg0"},
		"Addresses": []string{"192.168.7.1/24", "fd00:7::1/64"}, "Routes": []string{"10.9.0.0/16"},
		"NATAddressRange": "198.51.100.1-198.51.100.9", "NATIPv6AddressRange": "2001:db8::1-2001:db8::f",
		"NATPortRange": "2000-2000", "NATIPv6": true, "IPv6Guests": true, "Zone": "trusted",
		"DHCP": false, "DNS": false, "TFTP": true,
	}
	if len(in) != len(SettingKeys()) {
		t.Fatal("a setting is missing in this test")
	}
	n, err := FromSettings("seven", in)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, n.Settings()); diff != "" {
		t.Error(diff)
	}
	roundTrip(t, n)
}

func TestFromSettingsRefuses(t *testing.T) {
	many := make([]string, MaxAddresses+1)
	for name, c := range map[string]struct {
		set  values
		sort error
		text string // what the message must name
	}{
		"unknown key":      {values{"Bridges": "x"}, ErrInvalid, `Bridges: there is no such setting`},
		"read-only key":    {values{"State": "active"}, ErrInvalid, "State"},
		"Name":             {values{"Name": "x"}, ErrInvalid, "Name: it cannot be set"},
		"UUID":             {values{"UUID": "x"}, ErrInvalid, "UUID: it cannot be set"},
		"bool for string":  {values{"ForwardMode": true}, ErrInvalid, "ForwardMode: the value has the type bool: give a string"},
		"string for bool":  {values{"DHCP": "yes"}, ErrInvalid, "DHCP: the value has the type string: give a boolean"},
		"string for list":  {values{"Addresses": "10.0.0.1/24"}, ErrInvalid, "Addresses: the value has the type string: give an array of strings"},
		"nil":              {values{"Routes": nil}, ErrInvalid, "Routes: the value has the type <nil>"},
		"int for range":    {values{"NATPortRange": 5}, ErrInvalid, "NATPortRange: the value has the type int"},
		"empty bridge":     {values{"Bridge": ""}, ErrInvalid, "Bridge"},
		"empty mode":       {values{"ForwardMode": ""}, ErrInvalid, "ForwardMode"},
		"mode bridge":      {values{"ForwardMode": "bridge"}, ErrInvalid, "nat, route, open and isolated"},
		"address, no bits": {values{"Addresses": []string{"10.0.0.1"}}, ErrInvalid, `"10.0.0.1"`},
		"address, scope":   {values{"Addresses": []string{"fd00::1%eth0/64"}}, ErrInvalid, "Addresses"},
		"mapped":           {values{"Addresses": []string{"::ffff:10.0.0.1/120"}}, ErrInvalid, "IPv4-mapped"},
		"route, host bits": {values{"Routes": []string{"10.0.0.1/24"}}, ErrInvalid, "write the subnet, 10.0.0.0/24"},
		"range, one end":   {values{"NATAddressRange": "192.0.2.1"}, ErrInvalid, "first-last"},
		"range of IPv6":    {values{"NATAddressRange": "fd00::1-fd00::2"}, ErrInvalid, "not an IPv4 address"},
		"range of both":    {values{"NATAddressRange": "192.0.2.1-fd00::2"}, ErrInvalid, "not an IPv4 address"},
		"ports, one end":   {values{"NATPortRange": "2000"}, ErrInvalid, "first-last"},
		"ports, zero":      {values{"NATPortRange": "0-10"}, ErrInvalid, "NATPortRange"},
		"ports, too high":  {values{"NATPortRange": "1-65536"}, ErrInvalid, "NATPortRange"},
		"ports backwards":  {values{"NATPortRange": "9-8"}, ErrInvalid, "swap"},
		"pool on route":    {values{"ForwardMode": "route", "NATAddressRange": "192.0.2.1-192.0.2.2"}, ErrInvalid, "NATAddressRange"},
		"NATIPv6 on open":  {values{"ForwardMode": "open", "NATIPv6": true}, ErrInvalid, "NATIPv6"},
		"6 pool, no IPv6":  {values{"NATIPv6AddressRange": "2001:db8::1-2001:db8::2"}, ErrInvalid, "switch that on (NATIPv6"},
		"dev on isolated":  {values{"ForwardMode": "isolated", "ForwardDevices": []string{"eth0"}}, ErrInvalid, "ForwardDevices"},
		"addresses":        {values{"Addresses": many}, ErrLimit, "limit is 64"},
		"routes":           {values{"Routes": many}, ErrLimit, "limit is 64"},
		"devices":          {values{"ForwardDevices": many}, ErrLimit, "limit is 64"},
		"forwards":         {values{"PortForwards": []map[string]any{{}}}, ErrNotSupported, "PortForwards"},
		"forwards, type":   {values{"PortForwards": "80"}, ErrInvalid, "PortForwards"},
		"key not UTF-8":    {values{"\xff\x00": "80"}, ErrInvalid, "no such setting"},
	} {
		t.Run(name, func(t *testing.T) {
			set := values{"Bridge": "virbr0"}
			for k, v := range c.set {
				set[k] = v
			}
			_, err := FromSettings("n", set)
			if !errors.Is(err, c.sort) || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("error is %v, want %v with %q", err, c.sort, c.text)
			}
			checkMessage(t, err)
		})
	}
	if _, err := FromSettings("n", values{}); !errors.Is(err, ErrInvalid) || !strings.HasPrefix(err.Error(), "Bridge: ") {
		t.Errorf("without a bridge: %v", err)
	}
	if _, err := FromSettings("a/b", values{"Bridge": "virbr0"}); !errors.Is(err, ErrInvalid) || !strings.HasPrefix(err.Error(), "Name: ") {
		t.Errorf("with a bad name: %v", err)
	}
}

func TestFromSettingsTakesNoPortForwards(t *testing.T) {
	if _, err := FromSettings("n", values{"Bridge": "virbr0", "PortForwards": []map[string]any{}}); err != nil {
		t.Error(err)
	}
}

func TestWith(t *testing.T) {
	before, err := FromSettings("n", values{
		"Bridge": "virbr0", "Addresses": []string{"10.0.0.1/24"}, "ForwardDevices": []string{"eth0"}, "Zone": "trusted"})
	if err != nil {
		t.Fatal(err)
	}
	want := before.Settings()
	after, err := before.With(values{"ForwardMode": "isolated", "ForwardDevices": []string{}, "DNS": false})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, before.Settings()); diff != "" {
		t.Errorf("the network itself changed:\n%s", diff)
	}
	want["ForwardMode"], want["ForwardDevices"], want["DNS"] = "isolated", []string{}, false
	if diff := cmp.Diff(want, after.Settings()); diff != "" {
		t.Error(diff)
	}
	if after.UUID != before.UUID || after.Name != before.Name {
		t.Error("name or UUID changed")
	}
	after.Addresses[0] = after.Addresses[0].Masked()
	if before.Addresses[0] == after.Addresses[0] {
		t.Error("both networks share a list")
	}
	if _, err := before.With(values{"ForwardMode": "isolated"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("devices kept on an isolated network: %v", err)
	}
	if _, err := before.With(values{"Name": "m"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("renamed: %v", err)
	}
}

func TestLeavingPortsToTheDefault(t *testing.T) {
	n, err := FromSettings("n", values{"Bridge": "virbr0", "NATPortRange": "1024-65535"})
	if err != nil || !n.NATPorts.IsZero() {
		t.Errorf("ports are %v, error %v", n.NATPorts, err)
	}
}

func FuzzFromSettings(f *testing.F) {
	f.Add("n", "Addresses", "10.0.0.1/24")
	f.Add("n", "NATPortRange", "1-2")
	f.Add("n", "NATAddressRange", "192.0.2.1-192.0.2.2")
	f.Add("ä", "Zone", "a/b")
	f.Add("n", "ForwardMode", "open")
	f.Fuzz(func(t *testing.T, name, key, value string) {
		for _, v := range []any{value, strings.Split(value, ","), value != ""} {
			set := values{"Bridge": "virbr0"}
			set[key] = v
			n, err := FromSettings(name, set)
			if err != nil {
				checkMessage(t, err)
				continue
			}
			roundTrip(t, n)
		}
	})
}
