package tests

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// counts makes a network's six totals.
func counts(from, fromBytes, to, toBytes, rejectedFrom, rejectedTo uint64) map[string]uint64 {
	return map[string]uint64{
		"FromGuestPackets": from, "FromGuestBytes": fromBytes, "ToGuestPackets": to, "ToGuestBytes": toBytes,
		"RejectedFromGuestPackets": rejectedFrom, "RejectedToGuestPackets": rejectedTo,
	}
}

// wantCounters waits a moment: an answer may be some 20 ms old.
func (r *rig) wantCounters(when, network string, want map[string]uint64) {
	r.t.Helper()
	deadline := time.Now().Add(host.Patient(2 * time.Second))
	for {
		diff := cmp.Diff(want, r.Counters(network))
		if diff == "" {
			return
		}
		if time.Now().After(deadline) {
			r.t.Errorf("%s: counters of %s (-want +got):\n%s", when, network, diff)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// send sends at least 20 packets of 100 bytes, headers included, to a receiver
// that does not answer, and gives how many it sent and how many arrived.
func send(t *testing.T, from, to host.Node, target, source string) (sent, arrived uint64) {
	t.Helper()
	cfg := host.StreamConfig{To: at(target), Rate: 1000, Size: 72}
	if source != "" {
		cfg.From = at(source)
	}
	s, err := host.StartStream(from, to, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(host.Patient(20 * time.Second)); s.Sent() < 20 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	r := s.Stop()
	if r.Sent < 20 {
		t.Fatalf("sending to %s: %v", target, r)
	}
	return r.Sent, r.Received
}

// TestWhatIsCounted: forwarded packets, each on the side that decided on it.
func TestWhatIsCounted(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	internet := r.Internet()
	r.Bridge("virbr1", "10.1.0.1/24", "10.11.0.1/24")
	r.Bridge("virbr2", "10.2.0.1/24")
	r.must(r.AddXML(netXML("one", "virbr1", "nat", "10.1.0.1/24", "10.11.0.1/24")))
	r.must(r.AddXML(netXML("two", "virbr2", "route", "10.2.0.1/24")))
	one, other := r.Guest("virbr1", "one", "10.1.0.10/24"), r.Guest("virbr1", "other", "10.11.0.10/24")
	two := r.Guest("virbr2", "two", "10.2.0.10/24")
	one.Must("ip", "address", "add", "100.64.0.1/32", "dev", "eth0")

	nothing := counts(0, 0, 0, 0, 0, 0)
	quiet := func(when string, from, to host.Node, target string) {
		t.Helper()
		if sent, arrived := send(t, from, to, target, ""); arrived != sent {
			t.Errorf("%s: %d of %d packets arrived", when, arrived, sent)
		}
		r.wantCounters(when, "one", nothing)
		r.wantCounters(when, "two", nothing)
	}
	quiet("to the host", one, r.Host, "10.1.0.1:5000")
	quiet("from the host", r.Host, one, "10.1.0.10:5000")
	one.Must("ip", "address", "add", "10.11.0.77/24", "dev", "eth0")
	quiet("on the bridge", other, one, "10.11.0.77:5000")
	one.Must("ip", "address", "del", "10.11.0.77/24", "dev", "eth0")
	quiet("routed back into its bridge", other, one, "10.1.0.10:5000")

	sent, _ := send(t, one, internet, "203.0.113.1:5001", "")
	out := sent
	r.wantCounters("let out", "one", counts(out, 100*out, 0, 0, 0, 0))
	in, _ := send(t, internet, two, "10.2.0.10:5002", "")
	r.wantCounters("let in", "two", counts(0, 0, in, 100*in, 0, 0))
	refused, arrived := send(t, internet, one, "10.1.0.10:5003", "")
	r.wantCounters("refused at its door", "one", counts(out, 100*out, 0, 0, 0, refused))
	forged, left := send(t, one, internet, "203.0.113.1:5004", "100.64.0.1:0")
	r.wantCounters("forged", "one", counts(out, 100*out, 0, 0, forged, refused))
	between, _ := send(t, one, two, "10.2.0.10:5005", "")
	out += between
	r.wantCounters("between two networks", "one", counts(out, 100*out, 0, 0, forged, refused))
	r.wantCounters("between two networks", "two", counts(0, 0, in+between, 100*(in+between), 0, 0))
	back, came := send(t, two, one, "10.1.0.10:5006", "")
	r.wantCounters("let out and refused", "two", counts(back, 100*back, in+between, 100*(in+between), 0, 0))
	r.wantCounters("let out and refused", "one", counts(out, 100*out, 0, 0, forged, refused+back))
	if arrived+left+came != 0 {
		t.Errorf("%d, %d and %d refused packets arrived", arrived, left, came)
	}
	if got := host.Try(one, internet, host.Probe{Proto: host.UDP, To: at("203.0.113.1:5007")}); !got.Reached {
		t.Errorf("with an answer: %v", got)
	}
	time.Sleep(25 * time.Millisecond) // an answer may be 20 ms old
	got := r.Counters("one")
	r.wantCounters("with an answer", "one", counts(out+1, got["FromGuestBytes"], 1, got["ToGuestBytes"], forged, refused+back))
}

// TestCountersNeverGoBack, whatever is done but Replace and RemoveNetwork.
func TestCountersNeverGoBack(t *testing.T) {
	t.Parallel()
	r, guest, internet := natRig(t)
	counted := map[string]uint64{}
	after := func(when string) {
		t.Helper()
		counted = r.notBelow(when, "default", counted)
		host.Try(guest, internet, host.Probe{Proto: host.UDP, To: at("203.0.113.1:0")})
		host.Try(internet, guest, host.Probe{Proto: host.UDP, To: at("192.168.122.10:0")})
		time.Sleep(25 * time.Millisecond)
		counted = r.notBelow(when+", after traffic", "default", counted)
	}
	after("added")
	for _, settings := range []map[string]any{
		{"ForwardMode": "route"}, {"ForwardMode": "isolated"}, {"ForwardMode": "open"}, {"ForwardMode": "nat"},
		{"NATPortRange": "2000-3000"}, {"Addresses": []string{natNet, "10.55.0.1/24"}},
	} {
		for key, value := range settings {
			r.must(r.Network("default", "Update", opts(key, value), opts()))
			after(fmt.Sprintf("%s = %v", key, value))
		}
	}
	r.must(r.Network("default", "Update", opts("DNS", false), opts("Persistent", true)))
	after("made persistent")
	r.must(r.Network("default", "Update", opts("ForwardMode", "open", "NATPortRange", ""), opts()))
	after("open until reload")
	r.restart(true)
	after("killed while open")
	r.must(r.Manager("Reload"))
	after("reloaded")
	r.reapply()
	after("reapplied")
	r.rename("virbr0", "away0")
	r.Must("ip", "link", "add", "virbr0", "type", "veth", "peer", "name", "other0")
	r.awaitFinding("bridge-renamed", "away0")
	after("its bridge has another name, and something else its own")
	r.Must("ip", "link", "del", "virbr0")
	r.rename("away0", "virbr0")
	r.awaitNoFinding("bridge-renamed")
	after("its bridge is back")
	r.wantError(r.AddXML(netXML("default", "lo", "nat", natNet), "Replace", true), "InvalidArgument")
	after("a Replace that failed")
	if counted["FromGuestPackets"] < 10 || counted["RejectedToGuestPackets"] < 5 {
		t.Errorf("too little was counted: %v", counted)
	}
}

// TestReplaceAndRemoveEndCounters, also those that a restart or a repair
// brings back.
func TestReplaceAndRemoveEndCounters(t *testing.T) {
	t.Parallel()
	doc := netXML("default", "virbr0", "nat", natNet)
	ends := map[string]func(r *rig){
		"Replace": func(r *rig) { r.must(r.AddXML(doc, "Replace", true)) },
		"Remove": func(r *rig) {
			r.must(r.Manager("RemoveNetwork", "default", opts()))
			r.must(r.AddXML(doc))
		},
		"Remove, restart": func(r *rig) {
			r.must(r.Manager("RemoveNetwork", "default", opts()))
			r.restart(false)
			r.must(r.AddXML(doc))
		},
		"Remove, kill": func(r *rig) {
			r.must(r.Manager("RemoveNetwork", "default", opts()))
			r.restart(true)
			r.must(r.AddXML(doc))
		},
	}
	laters := map[string]func(r *rig){
		"at once":       func(*rig) {},
		"after a kill":  func(r *rig) { r.restart(true) },
		"after a start": func(r *rig) { r.restart(false) },
		"after a flush": func(r *rig) { r.Must("nft", "flush", "ruleset"); r.reapply() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.write(configFile, "own_table = false\n")
			r.StartDaemon()
			r.Bridge("virbr0", natNet)
			guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Internet()
			r.must(r.AddXML(doc))
			r.must(r.AddXML(lasting("other", 3, "nat")))
			for when, later := range laters {
				send(t, guest, internet, "203.0.113.1:5001", "")
				time.Sleep(25 * time.Millisecond)
				if c := r.Counters("default"); c["FromGuestPackets"] < 20 {
					t.Errorf("%s: counted before: %v", when, c)
				}
				r.awaitSaved()
				r.restart(false) // so that they come from a file
				end(r)
				later(r)
				r.wantCounters(name+" "+when, "default", counts(0, 0, 0, 0, 0, 0))
			}
		})
	}
}
