package packets

import (
	"encoding/json"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/tests/model"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// seed returns the seed of random networks and packets. Another one is chosen by
// VIRTFIREWALLD_TEST_SEED.
func seed(t *testing.T) uint64 {
	t.Helper()
	n := uint64(11)
	if text := os.Getenv("VIRTFIREWALLD_TEST_SEED"); text != "" {
		var err error
		n, err = strconv.ParseUint(text, 10, 64)
		rig.Must(t, err)
	}
	t.Logf("VIRTFIREWALLD_TEST_SEED=%d", n)
	return n
}

// TestVerdictsAreTheModels compares packet by packet what becomes of random
// packets between 200 random networks with what the model of libvirt's rules and
// of the deliberate differences says: with br_netfilter and without, and again
// while every set and map of interface IDs is empty, since by name alone
// everything holds as well.
func TestVerdictsAreTheModels(t *testing.T) {
	t.Parallel()
	s := seed(t)
	w := newWires(t, s, model.Generate(s, 200, "wan0", "lan0"), model.NFTables)
	w.govern()
	w.wantAll(w.compareBoth("by ID and name", 12))
	// The service would put back at once what is missing.
	rig.Must(t, unix.Kill(w.Daemon.PID(), unix.SIGSTOP))
	w.emptyIDs()
	w.wantAll(w.compareBoth("by name alone", 12))
	w.wantNoIDs()
	rig.Must(t, unix.Kill(w.Daemon.PID(), unix.SIGCONT))
}

// TestVerdictsOfIptablesAreTheModels is the same with the iptables backend, for
// which fewer differences hold.
func TestVerdictsOfIptablesAreTheModels(t *testing.T) {
	t.Parallel()
	s := seed(t)
	w := newWires(t, s, model.Generate(s, 20, "wan0", "lan0"), model.IPTables)
	w.govern()
	w.wantAll(w.compareBoth("iptables", 40))
}

// TestModelIsLibvirts compares the model with the real libvirt, before any of the
// differences.
func TestModelIsLibvirts(t *testing.T) {
	t.Parallel()
	s := seed(t)
	networks := model.Generate(s, 6, "wan0", "lan0")
	for i := range networks {
		n := &networks[i]
		n.Devices = n.Devices[:min(1, len(n.Devices))] // D10
		if n.Ports[0] == n.Ports[1] && n.Ports[0] != 0 {
			n.Ports[1]++ // D5: libvirt starts no network with a range of one
		}
	}
	w := newWires(t, s, networks, model.Libvirt)
	w.libvirt()
	w.wantAll(w.compareBoth("libvirt", 100))
}

// compareBoth compares without br_netfilter and with it. Each time the packets are
// others: conntrack would know them.
func (w *wires) compareBoth(when string, each int) *tally {
	w.T.Helper()
	count := &tally{map[model.Fate]int{}, map[string]int{}}
	began := time.Now()
	for _, on := range []string{"0", "1"} {
		w.Must("sysctl", "-q", "-w", "net.bridge.bridge-nf-call-iptables="+on, "net.bridge.bridge-nf-call-ip6tables="+on)
		w.model.BridgeNetfilter = on == "1"
		w.compare(when+", br_netfilter "+on, w.sample(each), count)
	}
	w.T.Logf("%s: %v in %s", when, count.fates, time.Since(began).Round(time.Millisecond))
	return count
}

// wantAll checks that a sample shows each difference, and packets that pass and
// that are refused.
func (w *wires) wantAll(count *tally) {
	w.T.Helper()
	for _, name := range w.model.Differences() {
		if w.T.Logf("%s: %d", name, count.differences[name]); count.differences[name] == 0 {
			w.T.Errorf("%s: no packet of the sample shows the difference", name)
		}
	}
	if count.fates[model.Passes] == 0 || count.fates[model.Refused] == 0 {
		w.T.Errorf("the packets of the sample share a fate: %v", count.fates)
	}
}

// emptyIDs removes all elements of all sets and maps of interface IDs, whatever
// they are called.
func (w *wires) emptyIDs() {
	w.T.Helper()
	for _, kind := range []string{"set", "map"} {
		for name, elements := range w.byID(kind) {
			if elements == 0 {
				w.T.Errorf("%s %s has no elements: nothing is shown by emptying it", kind, name)
			}
			w.Must("nft", "flush", kind, "inet", "libvirt_network", name)
		}
	}
	w.wantNoIDs()
}

// wantNoIDs checks that those sets and maps are empty.
func (w *wires) wantNoIDs() {
	w.T.Helper()
	for _, kind := range []string{"set", "map"} {
		for name, elements := range w.byID(kind) {
			if elements != 0 {
				w.T.Errorf("%s %s has %d elements after it was emptied", kind, name, elements)
			}
		}
	}
}

// byID returns how many elements each set or map of the table has whose key has
// an interface ID in it.
func (w *wires) byID(kind string) map[string]int {
	w.T.Helper()
	var listing struct {
		Nftables []map[string]struct {
			Table, Name string
			Type        json.RawMessage
			Elem        []json.RawMessage
		}
	}
	rig.Must(w.T, json.Unmarshal([]byte(w.Must("nft", "-j", "list", kind+"s", "inet")), &listing))
	found := map[string]int{}
	for _, object := range listing.Nftables {
		o, ok := object[kind]
		if ok && o.Table == "libvirt_network" && isIDs(o.Type) {
			found[o.Name] = len(o.Elem)
		}
	}
	if len(found) == 0 {
		w.T.Errorf("there is no %s of interface IDs", kind)
	}
	return found
}

// isIDs reports whether a key is an interface ID, or several values of which one
// is.
func isIDs(key json.RawMessage) bool {
	var one string
	var several []string
	if json.Unmarshal(key, &one) == nil {
		several = []string{one}
	} else if json.Unmarshal(key, &several) != nil {
		return false
	}
	for _, part := range several {
		if part == "iface_index" {
			return true
		}
	}
	return false
}
