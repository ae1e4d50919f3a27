package packets

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// counts makes a network's six totals.
func counts(from, fromBytes, to, toBytes, rejectedFrom, rejectedTo uint64) map[string]uint64 {
	return map[string]uint64{
		"FromGuestPackets": from, "FromGuestBytes": fromBytes, "ToGuestPackets": to, "ToGuestBytes": toBytes,
		"RejectedFromGuestPackets": rejectedFrom, "RejectedToGuestPackets": rejectedTo,
	}
}

// wantCounters waits a moment: an answer may be some 20 ms old.
func wantCounters(r *rig.Rig, when, network string, want map[string]uint64) {
	r.T.Helper()
	deadline := time.Now().Add(host.Patient(2 * time.Second))
	for {
		diff := cmp.Diff(want, r.Counters(network))
		if diff == "" {
			return
		}
		if time.Now().After(deadline) {
			r.T.Errorf("%s: counters of %s (-want +got):\n%s", when, network, diff)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// send sends at least 20 packets of 100 bytes, headers included, to a receiver
// that does not answer, and returns how many it sent and how many arrived.
func send(t *testing.T, from, to host.Node, target, source string) (sent, arrived uint64) {
	t.Helper()
	cfg := host.StreamConfig{To: rig.At(target), Rate: 1000, Size: 72}
	if source != "" {
		cfg.From = rig.At(source)
	}
	s, err := host.StartStream(from, to, cfg)
	rig.Must(t, err)
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
	r := rig.Started(t)
	internet := r.Internet()
	r.Bridge("virbr1", "10.1.0.1/24", "10.11.0.1/24")
	r.Bridge("virbr2", "10.2.0.1/24")
	r.OK(r.AddXML(rig.NetXML("one", "virbr1", "nat", "10.1.0.1/24", "10.11.0.1/24")))
	r.OK(r.AddXML(rig.NetXML("two", "virbr2", "route", "10.2.0.1/24")))
	one, other := r.Guest("virbr1", "one", "10.1.0.10/24"), r.Guest("virbr1", "other", "10.11.0.10/24")
	two := r.Guest("virbr2", "two", "10.2.0.10/24")
	one.Must("ip", "address", "add", "100.64.0.1/32", "dev", "eth0")

	nothing := counts(0, 0, 0, 0, 0, 0)
	quiet := func(when string, from, to host.Node, target string) {
		t.Helper()
		if sent, arrived := send(t, from, to, target, ""); arrived != sent {
			t.Errorf("%s: %d of %d packets arrived", when, arrived, sent)
		}
		wantCounters(r, when, "one", nothing)
		wantCounters(r, when, "two", nothing)
	}
	quiet("to the host", one, r.Host, "10.1.0.1:5000")
	quiet("from the host", r.Host, one, "10.1.0.10:5000")
	one.Must("ip", "address", "add", "10.11.0.77/24", "dev", "eth0")
	quiet("on the bridge", other, one, "10.11.0.77:5000")
	one.Must("ip", "address", "del", "10.11.0.77/24", "dev", "eth0")
	quiet("routed back into its bridge", other, one, "10.1.0.10:5000")

	sent, _ := send(t, one, internet, "203.0.113.1:5001", "")
	out := sent
	wantCounters(r, "let out", "one", counts(out, 100*out, 0, 0, 0, 0))
	in, _ := send(t, internet, two, "10.2.0.10:5002", "")
	wantCounters(r, "let in", "two", counts(0, 0, in, 100*in, 0, 0))
	refused, arrived := send(t, internet, one, "10.1.0.10:5003", "")
	wantCounters(r, "refused at its door", "one", counts(out, 100*out, 0, 0, 0, refused))
	forged, left := send(t, one, internet, "203.0.113.1:5004", "100.64.0.1:0")
	wantCounters(r, "forged", "one", counts(out, 100*out, 0, 0, forged, refused))
	between, _ := send(t, one, two, "10.2.0.10:5005", "")
	out += between
	wantCounters(r, "between two networks", "one", counts(out, 100*out, 0, 0, forged, refused))
	wantCounters(r, "between two networks", "two", counts(0, 0, in+between, 100*(in+between), 0, 0))
	back, came := send(t, two, one, "10.1.0.10:5006", "")
	wantCounters(r, "let out and refused", "two", counts(back, 100*back, in+between, 100*(in+between), 0, 0))
	wantCounters(r, "let out and refused", "one", counts(out, 100*out, 0, 0, forged, refused+back))
	if arrived+left+came != 0 {
		t.Errorf("%d, %d and %d refused packets arrived", arrived, left, came)
	}
	if got := host.Try(one, internet, host.Probe{Proto: host.UDP, To: rig.At("203.0.113.1:5007")}); !got.Reached {
		t.Errorf("with an answer: %v", got)
	}
	time.Sleep(25 * time.Millisecond) // an answer may be 20 ms old
	got := r.Counters("one")
	wantCounters(r, "with an answer", "one", counts(out+1, got["FromGuestBytes"], 1, got["ToGuestBytes"], forged, refused+back))
}

// TestCountersNeverGoBack, whatever is done but Replace and RemoveNetwork.
func TestCountersNeverGoBack(t *testing.T) {
	t.Parallel()
	r, guest, internet := rig.WithNAT(t)
	counted := map[string]uint64{}
	after := func(when string) {
		t.Helper()
		counted = r.NotBelow(when, "default", counted)
		host.Try(guest, internet, host.Probe{Proto: host.UDP, To: rig.At("203.0.113.1:0")})
		host.Try(internet, guest, host.Probe{Proto: host.UDP, To: rig.At("192.168.122.10:0")})
		time.Sleep(25 * time.Millisecond)
		counted = r.NotBelow(when+", after traffic", "default", counted)
	}
	after("added")
	for _, settings := range []map[string]any{
		{"ForwardMode": "route"}, {"ForwardMode": "isolated"}, {"ForwardMode": "open"}, {"ForwardMode": "nat"},
		{"NATPortRange": "2000-3000"}, {"Addresses": []string{rig.NatNet, "10.55.0.1/24"}},
	} {
		for key, value := range settings {
			r.OK(r.Network("default", "Update", rig.Opts(key, value), rig.Opts()))
			after(fmt.Sprintf("%s = %v", key, value))
		}
	}
	r.OK(r.Network("default", "Update", rig.Opts("DNS", false), rig.Opts("Persistent", true)))
	after("made persistent")
	r.OK(r.Network("default", "Update", rig.Opts("ForwardMode", "open", "NATPortRange", ""), rig.Opts()))
	after("open until reload")
	r.Restart(true)
	after("killed while open")
	r.OK(r.Manager("Reload"))
	after("reloaded")
	r.Reapply()
	after("reapplied")
	rename(r, "virbr0", "away0")
	r.Must("ip", "link", "add", "virbr0", "type", "veth", "peer", "name", "other0")
	r.Findings.Await("bridge-renamed", "away0")
	after("its bridge has another name, and something else its own")
	r.Must("ip", "link", "del", "virbr0")
	rename(r, "away0", "virbr0")
	r.Findings.AwaitNone("bridge-renamed")
	after("its bridge is back")
	r.WantError(r.AddXML(rig.NetXML("default", "lo", "nat", rig.NatNet), "Replace", true), "InvalidArgument")
	after("a Replace that failed")
	if counted["FromGuestPackets"] < 10 || counted["RejectedToGuestPackets"] < 5 {
		t.Errorf("too little was counted: %v", counted)
	}
}

// TestReplaceAndRemoveEndCounters, also those that a restart or a repair
// brings back.
func TestReplaceAndRemoveEndCounters(t *testing.T) {
	t.Parallel()
	doc := rig.NetXML("default", "virbr0", "nat", rig.NatNet)
	ends := map[string]func(r *rig.Rig){
		"Replace": func(r *rig.Rig) { r.OK(r.AddXML(doc, "Replace", true)) },
		"Remove": func(r *rig.Rig) {
			r.OK(r.Manager("RemoveNetwork", "default", rig.Opts()))
			r.OK(r.AddXML(doc))
		},
		"Remove, restart": func(r *rig.Rig) {
			r.OK(r.Manager("RemoveNetwork", "default", rig.Opts()))
			r.Restart(false)
			r.OK(r.AddXML(doc))
		},
		"Remove, kill": func(r *rig.Rig) {
			r.OK(r.Manager("RemoveNetwork", "default", rig.Opts()))
			r.Restart(true)
			r.OK(r.AddXML(doc))
		},
	}
	laters := map[string]func(r *rig.Rig){
		"at once":       func(*rig.Rig) {},
		"after a kill":  func(r *rig.Rig) { r.Restart(true) },
		"after a start": func(r *rig.Rig) { r.Restart(false) },
		"after a flush": func(r *rig.Rig) { r.Must("nft", "flush", "ruleset"); r.Reapply() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rig.New(t)
			r.Write(rig.ConfigFile, "own_table = false\n")
			r.StartDaemon()
			r.Bridge("virbr0", rig.NatNet)
			guest, internet := r.Guest("virbr0", "guest", "192.168.122.10/24"), r.Internet()
			r.OK(r.AddXML(doc))
			r.OK(r.AddXML(rig.Lasting("other", 3, "nat")))
			for when, later := range laters {
				send(t, guest, internet, "203.0.113.1:5001", "")
				time.Sleep(25 * time.Millisecond)
				if c := r.Counters("default"); c["FromGuestPackets"] < 20 {
					t.Errorf("%s: counted before: %v", when, c)
				}
				r.AwaitSaved()
				r.Restart(false) // so that they come from a file
				end(r)
				later(r)
				wantCounters(r, name+" "+when, "default", counts(0, 0, 0, 0, 0, 0))
			}
		})
	}
}
