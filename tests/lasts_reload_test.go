package tests

import (
	"path"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"
)

// TestReloadReadsFilesAgain, those too that an administrator put there under
// names of his own.
func TestReloadReadsFilesAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.write(networksDir+"/kept.xml", lasting("kept", 1, "nat"))
	r.write(networksDir+"/90 my lab.xml", lasting("other", 2, "nat"))
	r.write(networksDir+"/notes.txt", "not a network")
	r.write(networksDir+"/.hidden.xml", lasting("hidden", 9, "nat"))
	r.StartDaemon()
	r.must(r.AddXML(lasting("runtime", 3, "nat")))
	r.wantNames("start", "kept", "other", "runtime")
	r.write(networksDir+"/byhand-whatever.xml", lasting("byhand", 4, "route"))
	r.write(networksDir+"/90 my lab.xml", lasting("other", 2, "isolated"))
	r.Must("rm", networksDir+"/kept.xml")
	r.wantNames("files changed, not reloaded", "kept", "other", "runtime")
	r.wantMode("files changed, not reloaded", "other", "nat")
	r.must(r.Manager("Reload"))
	r.wantNames("reloaded", "byhand", "other", "runtime")
	r.wantMode("reloaded", "other", "isolated")
	r.wantMode("reloaded", "byhand", "route")
	r.wantMode("reloaded", "runtime", "nat")
	r.must(r.Network("byhand", "Update", opts("ForwardMode", "nat"), opts("Persistent", true)))
	if text := r.file(networksDir + "/byhand-whatever.xml"); !strings.Contains(text, "nat") {
		t.Errorf("the file under a name of its own was not changed: %q", text)
	}
	r.must(r.Manager("RemoveNetwork", "other", opts("Persistent", true)))
	if files := r.Must("ls", networksDir); files != "byhand-whatever.xml\nnotes.txt\n" {
		t.Errorf("files: %q", files)
	}
	if err := r.Daemon.Signal(1); err != nil { // SIGHUP is a reload too
		t.Fatal(err)
	}
	r.restart(true)
	r.wantNames("restarted", "byhand", "runtime")
}

// TestReloadLeavesTheRestAlone: rules of networks whose files did not change
// are not touched, and all that changed is exchanged at once, also where two
// networks change places.
func TestReloadLeavesTheRestAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.write(networksDir+"/kept.xml", lasting("kept", 1, "nat"))
	r.write(networksDir+"/a.xml", lasting("other", 2, "nat"))
	r.write(networksDir+"/b.xml", lasting("byhand", 3, "route"))
	r.StartDaemon()
	before := nft(r.Host, "-a", "list", "chain", "inet", "libvirt_network", "net_kept_from")
	r.write(networksDir+"/a.xml", lasting("other", 3, "nat"))
	r.write(networksDir+"/b.xml", lasting("byhand", 2, "route"))
	r.must(r.Manager("Reload"))
	if after := nft(r.Host, "-a", "list", "chain", "inet", "libvirt_network", "net_kept_from"); after != before {
		t.Errorf("an unchanged network was made again:\n%s\n%s", before, after)
	}
	if b := r.Property("other", "Bridge"); b != "virbr3" {
		t.Errorf("other has bridge %v", b)
	}
	var at godbus.ObjectPath
	r.must(r.Manager("GetNetworkByBridge", "virbr2"), &at)
	if path.Base(string(at)) != "byhand" {
		t.Errorf("virbr2 belongs to %s", at)
	}
}

func TestBrokenFileAtStart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.Announce("a stored network is left out until its file is right")
	r.write(networksDir+"/kept.xml", lasting("kept", 1, "nat"))
	r.write(networksDir+"/broken.xml", "<network><name>broken</name>")
	r.write(networksDir+"/empty.xml", "")
	r.write(networksDir+"/overlaps.xml", lasting("zz-overlaps", 1, "route"))
	r.Must("ln", "-s", "/nowhere", networksDir+"/dangling.xml")
	r.Must("mkdir", networksDir+"/folder.xml")
	r.StartDaemon()
	r.wantNames("started beside broken files", "kept")
	for _, file := range []string{"broken.xml", "empty.xml", "overlaps.xml", "dangling.xml", "folder.xml"} {
		if !strings.Contains(r.Daemon.Log(), networksDir+"/"+file) {
			t.Errorf("the journal does not name %s:\n%s", file, r.Daemon.Log())
		}
	}
	r.wantError(r.Manager("Reload"), "InvalidArgument")
	for _, file := range []string{"broken.xml", "empty.xml", "dangling.xml", "folder.xml"} {
		r.Must("rm", "-rf", networksDir+"/"+file)
	}
	r.wantRefusal(r.Manager("Reload"), "BridgeInUse", "zz-overlaps", "kept", "virbr1")
	r.write(networksDir+"/overlaps.xml", lasting("other", 2, "route"))
	r.must(r.Manager("Reload"))
	r.wantNames("mended", "kept", "other")
}

// TestFailedReloadChangesNothing: neither what is in force nor what later calls
// may do.
func TestFailedReloadChangesNothing(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	r.Announce("a stored network is left out until its file is right", standing)
	r.must(r.AddXML(lasting("kept", 1, "nat"), "Persistent", true))
	r.must(r.AddXML(lasting("other", 2, "nat"), "Persistent", true))
	r.must(r.Network("other", "Update", opts("ForwardMode", "route"), opts()))
	r.must(r.AddXML(lasting("runtime", 3, "nat")))
	whole := r.file(networksDir + "/kept.xml")
	before := nft(r.Host, "-a", "list", "ruleset")

	r.write(networksDir+"/kept.xml", whole[:len(whole)/2])
	r.write(networksDir+"/fine.xml", lasting("byhand", 4, "nat"))
	r.write(configFile, "firewall_backend = \"nftables\"\n")
	for range 2 {
		r.wantRefusal(r.Manager("Reload"), "InvalidArgument", networksDir+"/kept.xml", "reload")
	}
	r.AwaitState("kept", "degraded") // its file says something else than what is in force
	r.write(networksDir+"/kept.xml", whole)
	r.write(networksDir+"/fine.xml", lasting("byhand", 3, "nat"))
	r.wantRefusal(r.Manager("Reload"), "BridgeInUse", "byhand", "runtime")
	r.write(networksDir+"/fine.xml", netXML("byhand", "virbr7", "nat", "10.3.0.129/25"))
	r.wantRefusal(r.Manager("Reload"), "SubnetOverlap", "byhand", "runtime")
	r.write(networksDir+"/fine.xml", lasting("byhand", 4, "nat"))
	r.write(configFile, "firewall_backend = \"nonsense\"\n")
	r.wantRefusal(r.Manager("Reload"), "InvalidArgument", configFile, "nonsense")

	if after := nft(r.Host, "-a", "list", "ruleset"); after != before {
		t.Errorf("failed reloads changed the kernel:\n%s\n%s", before, after)
	}
	r.wantNames("after failed reloads", "kept", "other", "runtime")
	r.wantMode("after failed reloads", "other", "route")
	var configured godbus.Variant
	r.must(r.Call(managerPath, "org.freedesktop.DBus.Properties.Get", managerName, "ConfiguredBackend"), &configured)
	if configured.Value() != "auto" {
		t.Errorf("a failed reload took the configuration: %v", configured)
	}
	r.Must("rm", configFile)

	// What the failed reload saw is not yet in force, and in nobody's way.
	r.write(networksDir+"/kept.xml", whole[:len(whole)/2])
	r.wantError(r.Manager("Reload"), "InvalidArgument")
	r.must(r.Manager("RemoveNetwork", "kept", opts()))
	r.must(r.AddXML(whole, "Replace", true))
	r.must(r.Network("kept", "Update", opts("ForwardMode", "isolated"), opts()))
	if r.Property("kept", "Persistent") != true {
		t.Error("the network with the broken file is no longer persistent")
	}
	r.must(r.Manager("RemoveNetwork", "kept", opts()))
	r.must(r.Manager("RemoveNetwork", "runtime", opts()))
	r.restart(true)
	r.wantNames("restarted beside the broken file", "byhand", "other")
	r.write(networksDir+"/kept.xml", whole)
	r.must(r.Manager("Reload"))
	r.wantNames("file mended", "byhand", "kept", "other")
	r.wantMode("file mended", "kept", "nat")
}
