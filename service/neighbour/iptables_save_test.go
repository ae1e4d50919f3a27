package neighbour

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

// removalFrom returns removal of what iptables-save printed.
func removalFrom(text string, t targets, chains bool) (script string, f finding) {
	tables, err := xtables.Parse(text)
	if err != nil {
		return "", f
	}
	return removal(tables, false, t, chains)
}

// Each rule of libvirt's is replaced here by ones that only look alike.
func TestRulesThatAreNotLibvirts(t *testing.T) {
	for table, rules := range map[string][]string{
		"filter": {
			"-A LIBVIRT_INP -i virbr1 -p tcp -m tcp --dport 22 -j ACCEPT",
			"-A LIBVIRT_INP -i virbr1 -p tcp -m tcp --dport 69 -j ACCEPT",
			"-A LIBVIRT_INP -i virbr1 -p udp -m udp --sport 53 --dport 53 -j ACCEPT",
			"-A LIBVIRT_INP -s 10.2.0.0/24 -i virbr1 -p udp -m udp --dport 53 -j ACCEPT",
			"-A LIBVIRT_INP -i virbr1 -p udp -m udp --dport 53 -j DROP",
			"-A LIBVIRT_INP -i virbr1 -j ACCEPT",
			"-A LIBVIRT_INP -i virbr10 -p udp -m udp --dport 53 -j ACCEPT",
			"-A LIBVIRT_INP -i virbr1+ -p udp -m udp --dport 53 -j ACCEPT",
			"-A LIBVIRT_INP ! -i virbr1 -p udp -m udp --dport 53 -j ACCEPT",
			"-A LIBVIRT_INP -i virbr1 -p udp -m udp --dport 53 -m comment --comment dns -j ACCEPT",
			"-A LIBVIRT_OUT -i virbr1 -p udp -m udp --dport 53 -j ACCEPT",
			"-A LIBVIRT_OUT -o virbr1 -p udp -m udp --dport 67 -j ACCEPT",
			"-A LIBVIRT_FWX -i virbr1 -o virbr0 -j ACCEPT",
			"-A LIBVIRT_FWX -i virbr1 -j ACCEPT",
			"-A LIBVIRT_FWI -d 10.2.0.10/32 -o virbr1 -j ACCEPT",
			"-A LIBVIRT_FWI -d 10.9.0.0/24 -o virbr1 -j ACCEPT",
			"-A LIBVIRT_FWI -d 10.2.0.0/255.0.255.0 -o virbr1 -j ACCEPT",
			"-A LIBVIRT_FWI ! -d 10.2.0.0/24 -o virbr1 -j ACCEPT",
			"-A LIBVIRT_FWI -d 10.2.0.0/24 -j ACCEPT",
			"-A LIBVIRT_FWI -d 10.2.0.0/24 -o virbr1 -m conntrack --ctstate NEW -j ACCEPT",
			"-A LIBVIRT_FWI -d 10.2.0.0/24 -o virbr1 -m conntrack ! --ctstate RELATED,ESTABLISHED -j ACCEPT",
			"-A LIBVIRT_FWI -d 10.2.0.0/24 -o virbr1 -p tcp -m tcp --dport 80 -j ACCEPT",
			"-A LIBVIRT_FWI -o virbr1 -j ACCEPT",
			"-A LIBVIRT_FWI -o virbr1 -j REJECT --reject-with icmp-admin-prohibited",
			"-A LIBVIRT_FWI -o virbr1 -j DROP",
			"-A LIBVIRT_FWI -o virbr1 -g ACCEPT",
			"-A LIBVIRT_FWI -o virbr1",
			"-A LIBVIRT_FWI -o",
			"-A LIBVIRT_FWI",
			"-A LIBVIRT_FWO -s 10.2.0.0/24 -i virbr0 -j ACCEPT",
			"-A LIBVIRT_FWO -s 10.2.0.0/24 -s 10.2.0.0/24 -i virbr1 -j ACCEPT",
			"-A FORWARD -i virbr1 -o virbr1 -j ACCEPT",
			"-A LIBVIRT_PRT -o virbr1 -p udp -m udp --dport 68 -j CHECKSUM --checksum-fill",
		},
		"nat": {
			"-A LIBVIRT_PRT -s 10.9.0.0/24 ! -d 10.9.0.0/24 -j MASQUERADE",
			"-A LIBVIRT_PRT -s 10.2.0.0/24 -d 10.2.0.0/24 -j MASQUERADE",
			"-A LIBVIRT_PRT -s 10.2.0.0/24 -j MASQUERADE",
			"-A LIBVIRT_PRT -s 10.2.0.0/24 ! -d 10.2.0.0/24 -j MASQUERADE --random",
			"-A LIBVIRT_PRT -s 10.2.0.0/24 ! -d 10.2.0.0/24 -p tcp -j MASQUERADE --to-ports 1024-65535 --random",
			"-A LIBVIRT_PRT -s 10.2.0.0/24 -d 192.0.2.0/24 -j RETURN",
			"-A LIBVIRT_PRT -s 10.2.0.0/24 ! -d 10.2.0.0/24 -p icmp -j MASQUERADE",
			"-A LIBVIRT_FWX -i virbr1 -o virbr1 -j ACCEPT",
		},
		"mangle": {
			"-A LIBVIRT_PRT -o virbr1 -p udp -m udp --dport 67 -j CHECKSUM --checksum-fill",
			"-A LIBVIRT_PRT -o virbr1 -j CHECKSUM --checksum-fill",
		},
		"raw": {"-A LIBVIRT_FWX -i virbr1 -o virbr1 -j ACCEPT"},
	} {
		for _, rule := range rules {
			text := "*" + table + "\n:LIBVIRT_INP - [0:0]\n" + rule + "\nCOMMIT\n"
			if script, f := removalFrom(text, targetsOf(allNetworks()), false); script != "" || f.rules() != 0 {
				t.Errorf("%s: %s\nmade %s", table, rule, script)
			}
		}
	}
}

// A chain is removed with its own jump only, however often that exists.
func TestChainsGo(t *testing.T) {
	const chains = "*filter\n:FORWARD ACCEPT [0:0]\n:LIBVIRT_FWX - [0:0]\n:LIBVIRT_MINE - [0:0]\n"
	for _, c := range []struct{ rules, want string }{
		{"", "-X LIBVIRT_FWX\n"},
		{"-A FORWARD -j LIBVIRT_FWX\n", "-D FORWARD -j LIBVIRT_FWX\n-X LIBVIRT_FWX\n"},
		{"-A FORWARD -j LIBVIRT_FWX\n-A FORWARD -j LIBVIRT_FWX\n-A LIBVIRT_FWX -i virbr1 -o virbr1 -j ACCEPT\n",
			"-D LIBVIRT_FWX -i virbr1 -o virbr1 -j ACCEPT\n-D FORWARD -j LIBVIRT_FWX\n-D FORWARD -j LIBVIRT_FWX\n-X LIBVIRT_FWX\n"},
		{"-A FORWARD -j LIBVIRT_FWX\n-A FORWARD -i lo -j LIBVIRT_FWX\n", ""},
		{"-A FORWARD -j LIBVIRT_FWX\n-A OUTPUT -j LIBVIRT_FWX\n", ""},
		{"-A FORWARD -g LIBVIRT_FWX\n", ""},
		{"-A LIBVIRT_MINE -m comment --comment \"a -j b\" -j LIBVIRT_FWX\n", ""},
		{"-A LIBVIRT_FWX -j LIBVIRT_MINE\n", ""},
	} {
		script, _ := removalFrom(chains+c.rules+"COMMIT\n", targetsOf(allNetworks()), true)
		want := ""
		if c.want != "" {
			want = "*filter\n" + c.want + "COMMIT\n"
		}
		if diff := cmp.Diff(want, script); diff != "" {
			t.Errorf("%s: %s", c.rules, diff)
		}
	}
}

// Subnets behind guests count like the network's own.
func TestRoutesCount(t *testing.T) {
	n := networkOf(1, network.ModeNAT, "10.2.0.1/24")
	n.Routes = []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16")}
	const text = "*filter\n-A LIBVIRT_FWO -s 10.77.0.0/16 -i virbr1 -j ACCEPT\nCOMMIT\n"
	if script, _ := removalFrom(text, targetsOf([]network.Network{n}), true); !strings.Contains(script, "-D LIBVIRT_FWO -s 10.77.0.0/16 -i virbr1 -j ACCEPT\n") {
		t.Errorf("the script is %q", script)
	}
}

// Whatever the text, the script deletes only rules that exist, in chains of
// libvirt's, and their jumps.
func FuzzRemoval(f *testing.F) {
	f.Add("*filter\n:LIBVIRT_FWX - [0:0]\n-A FORWARD -j LIBVIRT_FWX\n-A LIBVIRT_FWX -i virbr1 -o virbr1 -j ACCEPT\nCOMMIT\n")
	f.Add("*nat\n:LIBVIRT_PRT - [1:2]\n-A LIBVIRT_PRT -s 10.2.0.0/24 ! -d 10.2.0.0/24 -p tcp -j SNAT --to-source 1.2.3.4:1-2\nCOMMIT\n*mangle\n-A LIBVIRT_PRT -o virbr1 -p udp -m udp --dport 68 -j CHECKSUM --checksum-fill")
	f.Add("*filter\n-A LIBVIRT_FWI -d 10.2.0.0/24 -o virbr1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A LIBVIRT_INP -i virbr1 -p udp -m udp --dport 53 -j ACCEPT")
	f.Add("-A x\n*\n:\n-A \n-A  -j \n*filter\n-A \"\\\n! ! -d -s")
	t := targetsOf(allNetworks())
	f.Fuzz(func(test *testing.T, text string) {
		script, found := removalFrom(text, t, true)
		deleted := 0
		for line := range strings.Lines(script) {
			line = strings.TrimSuffix(line, "\n")
			switch {
			case strings.HasPrefix(line, "-D "):
				if !strings.Contains(text, "-A"+line[2:]) || !strings.Contains(line, " LIBVIRT_") {
					test.Errorf("%q is not there", line)
				}
				if !strings.Contains(line, " -j LIBVIRT_") {
					deleted++
				}
			case strings.HasPrefix(line, "-X LIBVIRT_"), line == "COMMIT", line == "*filter", line == "*nat", line == "*mangle":
			default:
				test.Errorf("the script has %q", line)
			}
		}
		if deleted != found.rules() {
			test.Errorf("%d rules are found and %d deleted", found.rules(), deleted)
		}
	})
}

// With 1,000 networks, for one and for all.
func BenchmarkRemoval(b *testing.B) {
	var text strings.Builder
	var nets []network.Network
	text.WriteString("*filter\n")
	for i := range 1000 {
		subnet := fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)
		nets = append(nets, networkOf(i, network.ModeNAT, subnet))
		fmt.Fprintf(&text, "-A LIBVIRT_FWI -d %s -o virbr%d -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n", subnet, i)
		fmt.Fprintf(&text, "-A LIBVIRT_FWO -s %s -i virbr%d -j ACCEPT\n-A LIBVIRT_FWX -i virbr%d -o virbr%d -j ACCEPT\n", subnet, i, i, i)
	}
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			t := targetsOf(nets[:n])
			for b.Loop() {
				removalFrom(text.String(), t, true)
			}
		})
	}
}
