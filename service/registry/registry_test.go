package registry

import (
	"slices"
	"strconv"
	"sync"
	"testing"
)

type net struct {
	name, bridge, iface string
	index               int
}

func (n *net) Name() string   { return n.name }
func (n *net) Bridge() string { return n.bridge }
func (n *net) Iface() string  { return n.iface }
func (n *net) Index() int     { return n.index }

func with(nets ...*net) *Registry[*net, int] {
	r := New[*net](0)
	for _, n := range nets {
		r.Put([]Change[*net]{{Next: n}}, nil)
	}
	return r
}

func names(nets []*net) (out []string) {
	for _, n := range nets {
		out = append(out, n.name+" "+n.bridge)
	}
	slices.Sort(out)
	return out
}

// TestBridgesChangeHands in one step: what one network leaves another may have.
func TestBridgesChangeHands(t *testing.T) {
	a, b := &net{"a", "br0", "br0", 1}, &net{"b", "br1", "br1", 2}
	r := with(a, b)
	r.Put([]Change[*net]{{Old: a, Next: &net{"a", "br1", "br1", 2}}, {Old: b, Next: &net{"b", "br0", "br0", 1}}}, nil)
	for bridge, want := range map[string]string{"br0": "b", "br1": "a"} {
		if name, _ := r.ConfiguredFor(bridge); name != want {
			t.Errorf("%s is that of %q, want %s", bridge, name, want)
		}
	}
	if got := names(r.ByIndex(1)); !slices.Equal(got, []string{"b br0"}) {
		t.Errorf("link 1 is that of %q", got)
	}
	if got := r.ByIndex(0); got != nil {
		t.Errorf("no link is that of %q", names(got))
	}
}

func TestRenamedBridgeHasItsHolder(t *testing.T) {
	r := with(&net{"a", "br0", "lan0", 1}, &net{"b", "br1", "br1", 2})
	for iface, want := range map[string]string{"lan0": "a", "br1": "b", "br0": "", "eth0": ""} {
		if name, _ := r.HolderOf(iface); name != want {
			t.Errorf("%s is held by %q, want %q", iface, name, want)
		}
	}
}

// TestReservedUntilReleased: what a network was is claimed, and nobody is told of
// it, until its change is certain.
func TestReservedUntilReleased(t *testing.T) {
	was, is := &net{"a", "br0", "br0", 1}, &net{"a", "br1", "br1", 2}
	r := with(was)
	r.Reserve(Change[*net]{was, is})
	if got := names(r.Claims()); !slices.Equal(got, []string{"a br0", "a br1"}) || r.Len() != 1 {
		t.Errorf("claimed are %q", got)
	}
	if name, ok := r.Claimant("br0"); !ok || name != "a" {
		t.Errorf("br0 is claimed by %q", name)
	}
	told := func(certain []Change[*net]) {
		if len(certain) > 0 {
			t.Errorf("told of %+v, which is not certain", certain)
		}
	}
	next := &net{"a", "br1", "lan0", 2}
	r.Edit("a", func(*net) *net { return next }, told)
	if now, _ := r.Get("a"); now != next || !r.Uncertain("a") {
		t.Errorf("the network is %+v", now)
	}
	r.Release("a")
	if _, ok := r.Claimant("br0"); ok || r.Uncertain("a") {
		t.Error("br0 is claimed by a network that has left it")
	}
	r.Edit("a", func(n *net) *net { return n }, func([]Change[*net]) { t.Error("told of no change") })
	r.Edit("b", func(n *net) *net { return next }, func([]Change[*net]) { t.Error("told of no network") })
	r.Put([]Change[*net]{{Old: next}}, nil)
	if _, ok := r.Get("a"); ok || len(r.All()) > 0 {
		t.Error("a network that was removed is there")
	}
}

// TestToldInOrder: however many change something at once, each change is told
// before the next is made.
func TestToldInOrder(t *testing.T) {
	r := with(&net{name: "a"})
	var told []int
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				r.Edit("a", func(n *net) *net { return &net{name: "a", iface: n.iface + ".", index: n.index + 1} },
					func(c []Change[*net]) { told = append(told, c[0].Next.index) })
				r.EditHost(func(n int) int { return n + 1 }, func(old, next int) {
					if next != old+1 {
						t.Errorf("told of %d after %d", next, old)
					}
				})
				r.All()
			}
		})
	}
	all.Wait()
	if !slices.IsSorted(told) || len(told) != 1600 || r.Host() != 1600 {
		t.Errorf("told %s times, in order: %v", strconv.Itoa(len(told)), slices.IsSorted(told))
	}
}
