package watch

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"

	"github.com/virtfirewalld/virtfirewalld/service/watch/watchtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t testing.TB, cfg Config) *Monitor {
	t.Helper()
	m, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func bridge(name string) *netlink.Bridge {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	return &netlink.Bridge{LinkAttrs: attrs}
}

func addBridge(t testing.TB, name string) *netlink.Bridge {
	t.Helper()
	b := bridge(name)
	watchtest.Must(t, netlink.LinkAdd(b))
	return b
}

func addVeth(t testing.TB, name, peer string) *netlink.Veth {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	v := &netlink.Veth{LinkAttrs: attrs, PeerName: peer}
	watchtest.Must(t, netlink.LinkAdd(v))
	return v
}

// next returns the next change of one of the kinds.
func next(t testing.TB, m *Monitor, kinds ...Kind) Change {
	t.Helper()
	limit := time.After(5 * time.Second)
	for {
		select {
		case c := <-m.Changes():
			if slices.Contains(kinds, c.Kind) {
				return c
			}
		case <-limit:
			t.Fatal("no change within 5 s of the kinds", kinds)
		}
	}
}

func settle(t testing.TB, m *Monitor) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	watchtest.Must(t, m.Sync(ctx))
}

func TestStartKnowsWhatIsThere(t *testing.T) {
	watchtest.NewNamespace(t)
	b := addBridge(t, "virbr0")
	addVeth(t, "v0", "v1")
	m := start(t, Config{})
	got, ok := m.Link("virbr0")
	if want := (Link{Index: b.Index, Name: "virbr0", Bridge: true}); !ok || got != want {
		t.Errorf("Link(virbr0) = %+v, %v; want %+v", got, ok, want)
	}
	if got, ok := m.LinkByIndex(b.Index); !ok || got.Name != "virbr0" {
		t.Errorf("LinkByIndex = %+v, %v", got, ok)
	}
	if got, ok := m.Link("v0"); !ok || got.Bridge {
		t.Errorf("Link(v0) = %+v, %v; want one that is no bridge", got, ok)
	}
	if _, ok := m.Link("absent"); ok {
		t.Error("Link(absent) is there")
	}
	select {
	case c := <-m.Changes():
		t.Errorf("the initial state was told as a change: %+v", c)
	case <-time.After(20 * time.Millisecond):
	}
}

func TestBridgeIsDeletedAndMadeAgain(t *testing.T) {
	watchtest.NewNamespace(t)
	m := start(t, Config{})
	first := addBridge(t, "virbr0")
	if c := next(t, m, Appeared); c.New.Name != "virbr0" || !c.New.Bridge || c.New.Index != first.Index {
		t.Fatalf("got %+v", c)
	}
	watchtest.Must(t, netlink.LinkDel(first))
	second := addBridge(t, "virbr0")
	if c := next(t, m, Gone, Appeared); c.Kind != Gone || c.Old.Index != first.Index {
		t.Fatalf("got %+v, want that index %d is gone", c, first.Index)
	}
	if c := next(t, m, Gone, Appeared); c.Kind != Appeared || c.New.Index != second.Index {
		t.Fatalf("got %+v, want that index %d appeared", c, second.Index)
	}
	if l, ok := m.Link("virbr0"); !ok || l.Index != second.Index {
		t.Errorf("Link(virbr0) = %+v, %v", l, ok)
	}
	if _, ok := m.LinkByIndex(first.Index); ok {
		t.Error("the old index is still there")
	}
}

func TestRenameAndBack(t *testing.T) {
	watchtest.NewNamespace(t)
	b := addBridge(t, "virbr0")
	watchtest.Must(t, netlink.LinkSetUp(b))
	m := start(t, Config{})
	for _, step := range [][2]string{{"virbr0", "other"}, {"other", "virbr0"}} {
		watchtest.Must(t, netlink.LinkSetName(b, step[1]))
		c := next(t, m, Renamed, Gone, Appeared)
		want := Change{Kind: Renamed,
			Old: Link{Index: b.Index, Name: step[0], Bridge: true, Up: true},
			New: Link{Index: b.Index, Name: step[1], Bridge: true, Up: true}}
		if diff := cmp.Diff(want, c); diff != "" {
			t.Fatal(diff)
		}
		if _, ok := m.Link(step[0]); ok {
			t.Error("the old name is still there:", step[0])
		}
	}
}

func TestPortThatLeavesABridgeIsNotGone(t *testing.T) {
	watchtest.NewNamespace(t)
	b := addBridge(t, "virbr0")
	v := addVeth(t, "v0", "v1")
	m := start(t, Config{})
	watchtest.Must(t, netlink.LinkSetMaster(v, b))
	watchtest.Must(t, netlink.LinkSetNoMaster(v))
	settle(t, m)
	if _, ok := m.Link("v0"); !ok {
		t.Error("a port that left its bridge counts as deleted")
	}
	watchtest.Must(t, netlink.LinkDel(v))
	if c := next(t, m, Gone); c.Old.Name != "v0" && c.Old.Name != "v1" {
		t.Errorf("got %+v", c)
	}
}

func TestSyncAndQueryAreExact(t *testing.T) {
	watchtest.NewNamespace(t)
	m := start(t, Config{})
	for i := range 30 {
		name := fmt.Sprint("b", i)
		b := addBridge(t, name)
		if l, ok, err := m.Query(name); err != nil || !ok || l.Index != b.Index || !l.Bridge {
			t.Fatalf("Query(%s) = %+v, %v, %v", name, l, ok, err)
		}
		settle(t, m)
		if l, ok := m.Link(name); !ok || l.Index != b.Index {
			t.Fatalf("after Sync Link(%s) = %+v, %v", name, l, ok)
		}
		watchtest.Must(t, netlink.LinkDel(b))
		if _, ok, err := m.Query(name); ok || err != nil {
			t.Fatalf("Query of a deleted bridge: %v, %v", ok, err)
		}
		settle(t, m)
		if _, ok := m.Link(name); ok {
			t.Fatal("after Sync a deleted bridge is there")
		}
	}
	for _, name := range []string{"", "a-name-of-16-byt", "no/such"} {
		if l, ok, err := m.Query(name); ok || err != nil {
			t.Errorf("Query(%q) = %+v, %v, %v", name, l, ok, err)
		}
	}
}

func TestAddressesComeAndGo(t *testing.T) {
	watchtest.NewNamespace(t)
	m := start(t, Config{})
	b := addBridge(t, "virbr0")
	for _, a := range []string{"192.168.122.1/24", "fd00:1::1/64"} {
		addr, err := netlink.ParseAddr(a)
		watchtest.Must(t, err)
		watchtest.Must(t, netlink.AddrAdd(b, addr))
	}
	addr, err := netlink.ParseAddr("10.0.0.1/32")
	watchtest.Must(t, err)
	addr.Peer = &net.IPNet{IP: net.IPv4(10, 0, 0, 2), Mask: net.CIDRMask(30, 32)}
	watchtest.Must(t, netlink.AddrAdd(b, addr))
	settle(t, m)
	want := []Address{
		{Index: b.Index, Prefix: netip.MustParsePrefix("10.0.0.1/32"), Peer: netip.MustParsePrefix("10.0.0.2/30")},
		{Index: b.Index, Prefix: netip.MustParsePrefix("192.168.122.1/24")},
		{Index: b.Index, Prefix: netip.MustParsePrefix("fd00:1::1/64")},
	}
	prefixes := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	sortAll := func(l []Address) []Address {
		l = slices.DeleteFunc(l, func(a Address) bool { return a.Prefix.Addr().IsLoopback() })
		slices.SortFunc(l, func(a, b Address) int { return a.Prefix.Addr().Compare(b.Prefix.Addr()) })
		return l
	}
	if diff := cmp.Diff(want, sortAll(slices.Clone(m.Addresses())), prefixes); diff != "" {
		t.Error(diff)
	}
	watchtest.Must(t, netlink.AddrDel(b, addr))
	settle(t, m)
	if diff := cmp.Diff(want[1:], sortAll(slices.Clone(m.Addresses())), prefixes); diff != "" {
		t.Error(diff)
	}
	watchtest.Must(t, netlink.LinkDel(b))
	settle(t, m)
	if got := sortAll(slices.Clone(m.Addresses())); len(got) != 0 {
		t.Error("addresses of a deleted bridge are left:", got)
	}
}

func TestBurstOfBridges(t *testing.T) {
	watchtest.NewNamespace(t)
	for i := range 100 {
		addBridge(t, fmt.Sprint("old", i))
	}
	m := start(t, Config{})
	for i := range 1000 {
		addBridge(t, fmt.Sprint("b", i))
	}
	settle(t, m)
	if n := resyncs(m); n != 0 {
		t.Errorf("the burst overflowed the socket %d times", n)
	}
	for i := range 1000 {
		if l, ok := m.Link(fmt.Sprint("b", i)); !ok || !l.Bridge {
			t.Fatalf("b%d is missing", i)
		}
	}
	for i := range 1000 {
		if c := next(t, m, Appeared); c.New.Name != fmt.Sprint("b", i) {
			t.Fatalf("change %d is %+v", i, c)
		}
	}
}

// A socket with hardly any buffer overflows; what was delivered must nevertheless add
// up to the current state.
func TestOverflowIsMadeGood(t *testing.T) {
	watchtest.NewNamespace(t)
	for i := range 50 {
		addBridge(t, fmt.Sprint("old", i))
	}
	m := start(t, Config{receiveBuffer: 1})
	told := map[int]Link{}
	for _, l := range m.Links() {
		told[l.Index] = l
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case c := <-m.Changes():
				apply(told, c)
			case <-stop:
				return
			}
		}
	}()
	m.cache.mu.Lock() // the reader stands still at its first message
	for i := range 20 {
		watchtest.Must(t, netlink.LinkDel(bridge(fmt.Sprint("old", i))))
		addBridge(t, fmt.Sprint("old", i))
		watchtest.Must(t, netlink.LinkSetName(bridge(fmt.Sprint("old", 20+i)), fmt.Sprint("new", i)))
		watchtest.Must(t, netlink.LinkSetUp(bridge(fmt.Sprint("old", 40+i/2))))
	}
	m.cache.mu.Unlock()
	for limit := time.Now().Add(5 * time.Second); resyncs(m) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			close(stop)
			t.Fatal("the small buffer never overflowed: the test shows nothing")
		}
	}
	settle(t, m)
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) && m.queueLength() > 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond)
	close(stop)
	<-done
	want := map[int]Link{}
	links, err := netlink.LinkList()
	watchtest.Must(t, err)
	for _, l := range links {
		a := l.Attrs()
		want[a.Index] = Link{Index: a.Index, Name: a.Name, Bridge: l.Type() == "bridge", Up: a.Flags&net.FlagUp != 0, Master: a.MasterIndex}
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error("what was told differs from what is there (-is +told):\n", diff)
	}
}

func (m *Monitor) queueLength() int {
	m.queue.mu.Lock()
	defer m.queue.mu.Unlock()
	return len(m.queue.pending)
}

func TestCloseWhileNobodyListens(t *testing.T) {
	watchtest.NewNamespace(t)
	m, err := Start(t.Context(), Config{})
	watchtest.Must(t, err)
	for i := range 10 {
		addBridge(t, fmt.Sprint("b", i))
	}
	settle(t, m)
	watchtest.Must(t, m.Close())
	if _, _, err := m.Query("b1"); err == nil {
		t.Error("Query after Close succeeds")
	}
	if err := m.Sync(t.Context()); err == nil {
		t.Error("Sync after Close succeeds")
	}
	for range m.Changes() { // ends, since the channel is closed
		continue
	}
}

// Start takes the namespace that it is given, whatever thread it runs on.
func TestNamespaceByHandle(t *testing.T) {
	here := watchtest.NewNamespace(t)
	addBridge(t, "here")
	watchtest.NewNamespace(t)
	m := start(t, Config{NetNS: here})
	if _, ok := m.Link("here"); !ok {
		t.Error("the bridge of the given namespace is missing")
	}
	watchtest.Must(t, netns.Set(here))
	addBridge(t, "later")
	if c := next(t, m, Appeared); c.New.Name != "later" {
		t.Errorf("got %+v", c)
	}
}

// resyncs returns how often the monitor had to read everything again because the
// kernel's messages came faster than it read them.
func resyncs(m *Monitor) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.number - 1
}
