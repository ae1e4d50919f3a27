// Package analysistest has what tests of the analysis of others' rules share.
package analysistest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/neighbour/analysis"
	"github.com/virtfirewalld/virtfirewalld/service/network"
)

// Guests returns a network like libvirt's default one, with IPv6.
func Guests(t testing.TB) network.Network {
	t.Helper()
	n, err := network.FromXML([]byte(`<network><name>default</name><forward mode='nat'><nat ipv6='yes'/></forward><bridge name='virbr0'/>
		<ip address='192.168.122.1' prefix='24'><tftp root='/srv'/><dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip>
		<ip family='ipv6' address='2001:db8:122::1' prefix='64'><dhcp><range start='2001:db8:122::2' end='2001:db8:122::ff'/></dhcp></ip></network>`))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Flows returns what that network is entitled to, on a host whose way out is eth0.
func Flows(t testing.TB) []analysis.Flow {
	t.Helper()
	return analysis.Entitled(Guests(t), "virbr0", analysis.Uplinks{IPv4: []string{"eth0"}, IPv6: []string{"eth0"}})
}

// Golden compares what becomes of each of those flows, and what is said of those that
// are cut, with a file, or writes it.
func Golden(t testing.TB, file string, tables []analysis.Table, update bool) {
	t.Helper()
	got := describe(tables, Flows(t))
	if update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func describe(tables []analysis.Table, flows []analysis.Flow) string {
	var b strings.Builder
	for _, f := range flows {
		for _, p := range f.Packets {
			family := "IPv4"
			if p.IPv6 {
				family = "IPv6"
			}
			a := analysis.Decide(tables, p)
			fmt.Fprintf(&b, "%s, %s, protocol %d: %s", f.Name, family, p.Proto, [...]string{"passes", "unsure", "rejected", "dropped"}[a.Verdict])
			if a.Verdict != analysis.Passes {
				fmt.Fprintf(&b, " by %s", a.At)
			}
			b.WriteByte('\n')
		}
	}
	if cuts := analysis.Cuts(tables, flows); len(cuts) > 0 {
		e := analysis.Explain(tables, cuts)
		fmt.Fprintf(&b, "\n%s\n%s\n", e.Summary, strings.ReplaceAll(e.Remedy, "; ", "\n"))
	}
	return b.String()
}
