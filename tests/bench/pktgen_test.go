package main

import (
	"testing"
	"time"
)

// pktgenShows is what the kernel shows of a device.
const pktgenShows = `Params: count 30000  min_pkt_size: 60  max_pkt_size: 60
     frags: 0  delay: 0  clone_skb: 0  ifname: eth0
Current:
     pkts-sofar: 30000  errors: 0
Result: `

func TestPktgenResult(t *testing.T) {
	const good = "OK: 345000(c344000+d1000) usec, 30000 (60byte,0frags)\n  86956pps 41Mb/sec (41739130bps) errors: 0\n"
	each, err := pktgenResult(pktgenShows+good, 30000)
	if err != nil || each != 11500*time.Nanosecond {
		t.Errorf("a packet takes %v, %v; want 11.5µs", each, err)
	}
	for _, bad := range []string{"Idle", "OK: 345000(c344000+d1000) usec, 29999 (60byte,0frags)\n", ""} {
		if each, err := pktgenResult(pktgenShows+bad, 30000); err == nil {
			t.Errorf("the result %q is read as %v", bad, each)
		}
	}
}

func TestCostsAreComparedByFlow(t *testing.T) {
	f := flow{name: "NAT"}
	bare := costs{"NAT": {8000, 4000}}
	if got, want := (costs{"NAT": {10000, 3000}}).text(f, bare), "out 10000 (1.250), in 3000 (0.750)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
