package analysis_test

import (
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/service/neighbour/analysis"
	"github.com/virtfirewalld/virtfirewalld/service/neighbour/analysis/analysistest"
)

// TestDecide covers what a rule leaves open: what follows it is open too, until
// something is certain again.
func TestDecide(t *testing.T) {
	for name, c := range map[string]struct {
		rules string
		want  analysis.Verdict
	}{
		"a certain drop":                     {"-A FORWARD -i virbr0 -j DROP", analysis.Dropped},
		"perhaps accepted before":            {"-A FORWARD -m limit --limit 1/sec -j ACCEPT\n-A FORWARD -j DROP", analysis.Unsure},
		"perhaps dropped before":             {"-A FORWARD -m limit --limit 1/sec -j DROP\n-A FORWARD -j ACCEPT", analysis.Unsure},
		"perhaps dropped, then dropped":      {"-A FORWARD -m limit --limit 1/sec -j DROP\n-A FORWARD -j DROP", analysis.Dropped},
		"a chain that perhaps returns":       {"-A FORWARD -j C\n-A C -m limit --limit 1/sec -j RETURN\n-A C -j DROP", analysis.Unsure},
		"a chain that certainly returns":     {"-A FORWARD -j C\n-A C -j RETURN\n-A C -j DROP", analysis.Passes},
		"a goto comes back to the caller":    {"-A FORWARD -j C\n-A FORWARD -j DROP\n-A C -g D\n-A C -j ACCEPT\n-A D -i eth7 -j ACCEPT", analysis.Dropped},
		"perhaps a goto":                     {"-A FORWARD -j C\n-A C -m limit --limit 1/sec -g D\n-A C -j DROP\n-A D -i eth7 -j ACCEPT", analysis.Unsure},
		"a mark":                             {"-A FORWARD -j MARK --set-xmark 0x10/0xf0\n-A FORWARD -m mark --mark 0x10/0xf0 -j DROP", analysis.Dropped},
		"other bits of a mark":               {"-A FORWARD -j MARK --set-xmark 0x10/0xf0\n-A FORWARD -m mark --mark 0x1/0xf -j DROP", analysis.Passes},
		"a mark that is perhaps set":         {"-A FORWARD -m limit --limit 1/sec -j MARK --set-xmark 0x1/0xf\n-A FORWARD -m mark --mark 0x1/0xf -j DROP", analysis.Unsure},
		"a mark of a chain perhaps entered":  {"-A FORWARD -m limit --limit 1/sec -j C\n-A C -j MARK --set-xmark 0x1/0xf\n-A FORWARD -m mark --mark 0x1/0xf -j DROP", analysis.Unsure},
		"a mark after perhaps returning":     {"-A FORWARD -j C\n-A C -m limit --limit 1/sec -j RETURN\n-A C -j MARK --set-xmark 0x1/0xf\n-A FORWARD -m mark --mark 0x1/0xf -j DROP", analysis.Unsure},
		"a program decides":                  {"-A FORWARD -j NFQUEUE --queue-num 1", analysis.Unsure},
		"one guest's own denial":             {"-A FORWARD -s 192.168.122.7/32 -j DROP", analysis.Passes},
		"one address outside":                {"-A FORWARD -d 198.51.100.0/24 -j DROP", analysis.Passes},
		"all but one network outside":        {"-A FORWARD ! -d 10.0.0.0/8 -j DROP", analysis.Dropped},
		"one port":                           {"-A FORWARD -p tcp -m tcp --dport 25 -j DROP", analysis.Passes},
		"all ports that nobody has reserved": {"-A FORWARD -p tcp -m tcp --dport 1024:65535 -j DROP", analysis.Dropped},
		"an endless loop":                    {"-A FORWARD -j C\n-A C -j C", analysis.Unsure},
	} {
		tables := parse(t, "*filter\n:FORWARD ACCEPT [0:0]\n:C - [0:0]\n:D - [0:0]\n"+c.rules+"\nCOMMIT\n", false, "iptables")
		flows := analysistest.Flows(t)
		if got := analysis.Decide(tables, flows[0].Packets[0]); got.Verdict != c.want {
			t.Errorf("%s: %d by %s, want %d", name, got.Verdict, got.At, c.want)
		}
	}
}

// BenchmarkCuts is one network beside 5,000 rules of others, most of them about other
// interfaces.
func BenchmarkCuts(b *testing.B) {
	var rules strings.Builder
	for range 1250 {
		rules.WriteString("-A FORWARD -i br-1234 -o eth0 -j ACCEPT\n-A FORWARD -s 172.17.0.0/16 -j ACCEPT\n" +
			"-A FORWARD -p tcp -m multiport --dports 80,443 -j ACCEPT\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\n")
	}
	tables := parse(b, "*filter\n:FORWARD ACCEPT [0:0]\n"+rules.String()+"COMMIT\n", false, "iptables")
	flows := analysistest.Flows(b)
	for b.Loop() {
		if cuts := analysis.Cuts(tables, flows); len(cuts) > 0 {
			b.Fatal(cuts)
		}
	}
}
