package watch

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/virtfirewalld/virtfirewalld/service/watch/watchtest"
)

func wantName(t *testing.T, m *Monitor, name string, index int) {
	t.Helper()
	l, ok := m.LinkByName(name)
	if ok != (index > 0) || l.Index != index {
		t.Errorf("LinkByName(%s) = %+v, %v; want index %d", name, l, ok, index)
	}
	l, ok, err := m.Query(name)
	if err != nil || ok != (index > 0) || l.Index != index {
		t.Errorf("Query(%s) = %+v, %v, %v; want index %d", name, l, ok, err, index)
	}
}

func TestAlternativeNames(t *testing.T) {
	watchtest.NewNamespace(t)
	long := "enx" + strings.Repeat("0", 100)
	first, second := addVeth(t, "v0", "p0"), addVeth(t, "v1", "p1")
	watchtest.Must(t, netlink.LinkAddAltName(first, "uplink"))
	for _, l := range []netlink.Link{first, second} {
		watchtest.Must(t, netlink.LinkSetUp(l))
	}
	m := start(t, Config{})
	wantName(t, m, "uplink", first.Index)
	wantName(t, m, "v0", first.Index)
	if _, ok := m.Link("uplink"); ok {
		t.Error("Link takes an alternative name")
	}

	watchtest.Must(t, netlink.LinkAddAltName(first, long))
	if c := next(t, m, Updated); !slices.Equal(c.New.AltNames.List(), []string{"uplink", long}) || c.Old.AltNames != "uplink" {
		t.Errorf("got %+v", c)
	}
	wantName(t, m, long, first.Index)

	// A name that moves to another link, and one that becomes the link's own.
	watchtest.Must(t, netlink.LinkDelAltName(first, "uplink"))
	watchtest.Must(t, netlink.LinkAddAltName(second, "uplink"))
	settle(t, m)
	wantName(t, m, "uplink", second.Index)
	watchtest.Must(t, netlink.LinkDelAltName(second, "uplink"))
	watchtest.Must(t, netlink.LinkSetName(second, "uplink"))
	settle(t, m)
	wantName(t, m, "uplink", second.Index)
	wantName(t, m, "v1", 0)

	watchtest.Must(t, netlink.LinkDel(first))
	settle(t, m)
	wantName(t, m, long, 0)
	if len(m.cache.altNames) > 0 {
		t.Errorf("left over: %v", m.cache.altNames)
	}
}

// TestAlternativeNameOfLinkThatIsDown: the kernel sends no message then, and the
// link's next one has the name.
func TestAlternativeNameOfLinkThatIsDown(t *testing.T) {
	watchtest.NewNamespace(t)
	v := addVeth(t, "v0", "p0")
	m := start(t, Config{})
	watchtest.Must(t, netlink.LinkAddAltName(v, "uplink"))
	if l, ok, err := m.Query("uplink"); err != nil || !ok || l.Name != "v0" {
		t.Errorf("Query = %+v, %v, %v", l, ok, err)
	}
	watchtest.Must(t, netlink.LinkSetUp(v))
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		settle(t, m)
		if l, ok := m.LinkByName("uplink"); ok && l.Name == "v0" && l.Up {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the name is unknown though the link is up")
		}
	}
}
