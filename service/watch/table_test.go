package watch

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/virtfirewalld/virtfirewalld/service/watch/watchtest"
)

const watched = "libvirt_network"

func ours() TableID { return TableID{unix.NFPROTO_INET, watched} }

func watchTables(t *testing.T, ns netns.NsHandle) *Tables {
	t.Helper()
	w, err := WatchTables(TablesConfig{NetNS: ns})
	watchtest.Must(t, err)
	t.Cleanup(func() { watchtest.Must(t, w.Close()) })
	return w
}

func nft(t *testing.T, script string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

func awaitTouch(t *testing.T, w *Touches, what string) []Touch {
	t.Helper()
	select {
	case <-w.Touched():
		return w.Take()
	case <-time.After(10 * time.Second):
		t.Fatalf("%s was not told", what)
	}
	return nil
}

// messagesOf returns the kernel's messages of one transaction by nft, up to that of
// the new generation.
func messagesOf(t *testing.T, ns netns.NsHandle, script string) (all []syscall.NetlinkMessage) {
	t.Helper()
	sock, err := nl.SubscribeAt(ns, netns.None(), unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	watchtest.Must(t, err)
	defer sock.Close()
	watchtest.Must(t, sock.SetReceiveBufferSize(tableBuffer, true))
	watchtest.Must(t, sock.SetReceiveTimeout(&unix.Timeval{Sec: 10}))
	nft(t, script)
	for len(all) == 0 || all[len(all)-1].Header.Type&0xff != unix.NFT_MSG_NEWGEN {
		messages, _, err := sock.Receive()
		watchtest.Must(t, err)
		all = append(all, messages...)
	}
	return all
}

// TestForeignChangesOfTheTableAreTold for each kind of thing that a table can
// hold or be, with the program that did it.
func TestForeignChangesOfTheTableAreTold(t *testing.T) {
	ns := watchtest.NewNamespace(t)
	w := watchTables(t, ns).Subscribe(ours())
	const table = " inet " + watched
	for _, change := range []string{
		"add table" + table,
		"add chain" + table + " c",
		"add chain" + table + " base { type filter hook forward priority 5; policy accept; }",
		"add chain" + table + " base { policy drop; }",
		"add chain" + table + " ingress { type filter hook ingress device lo priority 0; }",
		"add rule" + table + " c accept",
		"insert rule" + table + " c counter drop",
		"flush chain" + table + " c",
		"add counter" + table + " n",
		"add quota" + table + " q { 1 bytes; }",
		"add limit" + table + " l { rate 1/second; }",
		"delete quota" + table + " q",
		"add set" + table + " s { type inet_service; }",
		"add element" + table + " s { 1 }",
		"add map" + table + " m { type ifname : verdict; }",
		"add element" + table + " m { \"x\" : goto c }",
		"delete element" + table + " m { \"x\" }",
		"add table" + table + " { flags dormant; }",
		"add table" + table,
		"delete chain" + table + " ingress",
		"flush ruleset",
	} {
		nft(t, change)
		got := awaitTouch(t, w, change)
		if len(got) != 1 || got[0].Table != ours() || got[0].Program != "nft" || got[0].PID == 0 || got[0].Port == 0 {
			t.Errorf("%s: told %+v", change, got)
		}
	}
}

// TestSubscribersHearOfTheirTables and of no others.
func TestSubscribersHearOfTheirTables(t *testing.T) {
	ns := watchtest.NewNamespace(t)
	w := watchTables(t, ns)
	filter, nat := TableID{unix.NFPROTO_IPV4, "filter"}, TableID{unix.NFPROTO_IPV6, "nat"}
	both, one, closed := w.Subscribe(filter, nat), w.Subscribe(nat), w.Subscribe(nat)
	closed.Close()
	nft(t, "add table ip filter\nadd table inet filter\nadd table ip6 filter")
	nft(t, "add table ip6 nat\nadd table ip nat")
	var got []Touch
	for len(got) < 2 {
		got = append(got, awaitTouch(t, both, "a table of two")...)
	}
	if alone := awaitTouch(t, one, "ip6 nat"); len(alone) != 1 || alone[0].Table != nat {
		t.Errorf("told %+v", alone)
	}
	if len(got) != 2 || got[0].Table != filter || got[1].Table != nat || got[0].PID == got[1].PID {
		t.Errorf("told %+v", got)
	}
	if len(closed.Touched()) > 0 || len(one.Take())+len(closed.Take()) > 0 {
		t.Error("something else was told")
	}
}

// TestWhoseChangesAreTold reads real messages: others' changes of a table are
// reported with the transaction's end, its owner's are not.
func TestWhoseChangesAreTold(t *testing.T) {
	ns := watchtest.NewNamespace(t)
	all := messagesOf(t, ns, "add table inet "+watched+"\nadd chain inet "+watched+" c\nadd rule inet "+watched+" c accept\n")
	if len(all) != 4 || all[0].Header.Pid == 0 {
		t.Fatalf("%d messages from port %d", len(all), all[0].Header.Pid)
	}
	read := func(own uint32, messages ...syscall.NetlinkMessage) (out []Touch) {
		var b batch
		for _, m := range messages {
			out = append(out, b.read(m, own)...)
		}
		return out
	}
	if got := read(0, all...); len(got) != 1 || got[0].Program != "nft" || got[0].Table != ours() {
		t.Errorf("told %+v", got)
	}
	if got := read(all[0].Header.Pid, all...); len(got) != 0 {
		t.Errorf("the owner's own: told %+v", got)
	}
	if got := read(0, all[3]); len(got) != 0 {
		t.Errorf("a new generation alone: told %+v", got)
	}
	other := all[0]
	other.Header.Pid++
	if got := read(0, all[0], other, all[3]); len(got) != 2 || got[0].Program != "" || got[0].Port != all[0].Header.Pid {
		t.Errorf("one whose end was lost: told %+v", got)
	}
	other.Header.Pid = 0
	if got := read(0, other); len(got) != 1 || got[0].Program != "" {
		t.Errorf("by the kernel itself: told %+v", got)
	}
	if got := read(0, messagesOf(t, ns, "flush ruleset")...); len(got) != 1 {
		t.Errorf("flush ruleset: told %+v", got)
	}
}

// TestLostMessagesCountAsAChange, since one may have been among them.
func TestLostMessagesCountAsAChange(t *testing.T) {
	ns := watchtest.NewNamespace(t)
	w := watchTables(t, ns)
	own := w.Subscribe(ours())
	nft(t, "add table inet other\nadd chain inet other c\n")
	// It reads a small buffer, and only after that has overflown.
	w.cancel()
	w.worker.Wait()
	sock, err := w.open()
	watchtest.Must(t, err)
	watchtest.Must(t, sock.SetReceiveBufferSize(4096, false))
	nft(t, strings.Repeat("add rule inet other c accept\n", 1000))
	w.worker.Go(func() { w.run(t.Context(), sock) })
	if got := awaitTouch(t, own, "an overflow"); len(got) != 1 || got[0] != (Touch{Table: ours()}) {
		t.Errorf("told %+v", got)
	}
	sock.Close()
}
