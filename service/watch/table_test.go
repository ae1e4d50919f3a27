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

func watchTable(t *testing.T, ns netns.NsHandle) *Table {
	t.Helper()
	w, err := WatchTable(TableConfig{NetNS: ns, Family: unix.NFPROTO_INET, Name: watched})
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

func awaitTouch(t *testing.T, w *Table, what string) {
	t.Helper()
	select {
	case <-w.Touched():
	case <-time.After(10 * time.Second):
		t.Fatalf("%s was not told", what)
	}
}

// messagesOf are the kernel's messages of one transaction by nft, up to that of
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

func TestForeignChangesOfTheTableAreTold(t *testing.T) {
	ns := watchtest.NewNamespace(t)
	w := watchTable(t, ns)
	for _, change := range []string{
		"add table inet " + watched,
		"add chain inet " + watched + " c",
		"add rule inet " + watched + " c accept",
		"flush chain inet " + watched + " c",
		"add counter inet " + watched + " n",
		"add map inet " + watched + " m { type ifname : verdict; }",
		"add element inet " + watched + " m { \"x\" : goto c }",
		"delete element inet " + watched + " m { \"x\" }",
		"flush ruleset",
	} {
		nft(t, change)
		awaitTouch(t, w, change)
	}
}

// TestWhoseChangesAreTold takes real messages: others' changes of the table are
// foreign, its owner's are not, nor are changes of other tables or of one with
// the same name in another family.
func TestWhoseChangesAreTold(t *testing.T) {
	ns := watchtest.NewNamespace(t)
	stranger := TableConfig{Family: unix.NFPROTO_INET, Name: watched}
	expect := func(table TableConfig, messages []syscall.NetlinkMessage, want bool) {
		t.Helper()
		for i, m := range messages[:len(messages)-1] {
			if table.foreign(m) != want {
				t.Errorf("message %d of type %#x: foreign is %v", i, m.Header.Type, !want)
			}
		}
		if table.foreign(messages[len(messages)-1]) {
			t.Error("a new generation alone is foreign")
		}
	}
	for _, elsewhere := range []string{"inet other", "inet " + watched + "2", "ip " + watched} {
		all := messagesOf(t, ns, "add table "+elsewhere+"\nadd chain "+elsewhere+" c\n"+strings.Repeat("add rule "+elsewhere+" c accept\n", 1000))
		if len(all) != 1003 {
			t.Errorf("%d messages", len(all))
		}
		expect(stranger, all, false)
	}
	expect(stranger, messagesOf(t, ns, "flush ruleset"), false)
	all := messagesOf(t, ns, "add table inet "+watched+"\nadd chain inet "+watched+" c\nadd rule inet "+watched+" c accept\n")
	if len(all) != 4 || all[0].Header.Pid == 0 {
		t.Fatalf("%d messages from port %d", len(all), all[0].Header.Pid)
	}
	expect(stranger, all, true)
	owner := stranger
	owner.Own = all[0].Header.Pid
	expect(owner, all, false)
	expect(stranger, messagesOf(t, ns, "flush ruleset"), true)
}

// TestLostMessagesCountAsAChange, since they may have told of one.
func TestLostMessagesCountAsAChange(t *testing.T) {
	ns := watchtest.NewNamespace(t)
	w := watchTable(t, ns)
	nft(t, "add table inet other\nadd chain inet other c\n")
	// It reads a small buffer, and only after that has overflown.
	w.cancel()
	w.worker.Wait()
	sock, err := w.subscribe()
	watchtest.Must(t, err)
	watchtest.Must(t, sock.SetReceiveBufferSize(4096, false))
	nft(t, strings.Repeat("add rule inet other c accept\n", 1000))
	w.worker.Go(func() { w.run(t.Context(), sock) })
	awaitTouch(t, w, "an overflow")
	sock.Close()
}
