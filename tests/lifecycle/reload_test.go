package lifecycle

import (
	"path"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestReloadReadsFilesAgain, those too that an administrator put there under
// names of his own.
func TestReloadReadsFilesAgain(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Write(rig.NetworksDir+"/kept.xml", rig.Lasting("kept", 1, "nat"))
	r.Write(rig.NetworksDir+"/90 my lab.xml", rig.Lasting("other", 2, "nat"))
	r.Write(rig.NetworksDir+"/notes.txt", "not a network")
	r.Write(rig.NetworksDir+"/.hidden.xml", rig.Lasting("hidden", 9, "nat"))
	r.StartDaemon()
	r.OK(r.AddXML(rig.Lasting("runtime", 3, "nat")))
	r.WantNames("start", "kept", "other", "runtime")
	r.Write(rig.NetworksDir+"/byhand-whatever.xml", rig.Lasting("byhand", 4, "route"))
	r.Write(rig.NetworksDir+"/90 my lab.xml", rig.Lasting("other", 2, "isolated"))
	r.Must("rm", rig.NetworksDir+"/kept.xml")
	r.WantNames("files changed, not reloaded", "kept", "other", "runtime")
	wantMode(r, "files changed, not reloaded", "other", "nat")
	r.OK(r.Manager("Reload"))
	r.WantNames("reloaded", "byhand", "other", "runtime")
	wantMode(r, "reloaded", "other", "isolated")
	wantMode(r, "reloaded", "byhand", "route")
	wantMode(r, "reloaded", "runtime", "nat")
	r.OK(r.Network("byhand", "Update", rig.Opts("ForwardMode", "nat"), rig.Opts("Persistent", true)))
	if text := r.File(rig.NetworksDir + "/byhand-whatever.xml"); !strings.Contains(text, "nat") {
		t.Errorf("the file under a name of its own was not changed: %q", text)
	}
	r.OK(r.Manager("RemoveNetwork", "other", rig.Opts("Persistent", true)))
	if files := r.Must("ls", rig.NetworksDir); files != "byhand-whatever.xml\nnotes.txt\n" {
		t.Errorf("files: %q", files)
	}
	if err := r.Daemon.Signal(1); err != nil { // SIGHUP is a reload too
		t.Fatal(err)
	}
	r.Restart(true)
	r.WantNames("restarted", "byhand", "runtime")
}

// TestReloadLeavesTheRestAlone: rules of networks whose files did not change
// are not touched, and all that changed is exchanged at once, also where two
// networks change places.
func TestReloadLeavesTheRestAlone(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	// What is made anew is listed with another handle; only chains have one.
	r.Write(rig.NetworksDir+"/kept.xml", rig.NetXML("kept", "virbr1", "nat", "10.1.0.1/20"))
	r.Write(rig.NetworksDir+"/a.xml", rig.Lasting("other", 2, "nat"))
	r.Write(rig.NetworksDir+"/b.xml", rig.Lasting("byhand", 3, "route"))
	r.StartDaemon()
	before := rig.NFT(r.Host, "-a", "list", "chain", "inet", "libvirt_network", "net_kept_from")
	r.Write(rig.NetworksDir+"/a.xml", rig.Lasting("other", 3, "nat"))
	r.Write(rig.NetworksDir+"/b.xml", rig.Lasting("byhand", 2, "route"))
	r.OK(r.Manager("Reload"))
	rig.Same(t, "an unchanged network was made again", before, rig.NFT(r.Host, "-a", "list", "chain", "inet", "libvirt_network", "net_kept_from"))
	if b := r.Property("other", "Bridge"); b != "virbr3" {
		t.Errorf("other has bridge %v", b)
	}
	var at godbus.ObjectPath
	r.OK(r.Manager("GetNetworkByBridge", "virbr2"), &at)
	if path.Base(string(at)) != "byhand" {
		t.Errorf("virbr2 belongs to %s", at)
	}
}

func TestBrokenFileAtStart(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Announce("a stored network is left out until its file is right")
	r.Write(rig.NetworksDir+"/kept.xml", rig.Lasting("kept", 1, "nat"))
	r.Write(rig.NetworksDir+"/broken.xml", "<network><name>broken</name>")
	r.Write(rig.NetworksDir+"/empty.xml", "")
	r.Write(rig.NetworksDir+"/overlaps.xml", rig.Lasting("zz-overlaps", 1, "route"))
	r.Must("ln", "-s", "/nowhere", rig.NetworksDir+"/dangling.xml")
	r.Must("mkdir", rig.NetworksDir+"/folder.xml")
	r.StartDaemon()
	r.WantNames("started beside broken files", "kept")
	for _, file := range []string{"broken.xml", "empty.xml", "overlaps.xml", "dangling.xml", "folder.xml"} {
		if !strings.Contains(r.Daemon.Log(), rig.NetworksDir+"/"+file) {
			t.Errorf("the journal does not name %s:\n%s", file, r.Daemon.Log())
		}
	}
	r.WantError(r.Manager("Reload"), "InvalidArgument")
	for _, file := range []string{"broken.xml", "empty.xml", "dangling.xml", "folder.xml"} {
		r.Must("rm", "-rf", rig.NetworksDir+"/"+file)
	}
	r.WantRefusal(r.Manager("Reload"), "BridgeInUse", "zz-overlaps", "kept", "virbr1")
	r.Write(rig.NetworksDir+"/overlaps.xml", rig.Lasting("other", 2, "route"))
	r.OK(r.Manager("Reload"))
	r.WantNames("mended", "kept", "other")
}

// TestFailedReloadChangesNothing: neither what is in force nor what later calls
// may do.
func TestFailedReloadChangesNothing(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.Announce("a stored network is left out until its file is right", standing)
	r.OK(r.AddXML(rig.Lasting("kept", 1, "nat"), "Persistent", true))
	r.OK(r.AddXML(rig.Lasting("other", 2, "nat"), "Persistent", true))
	r.OK(r.Network("other", "Update", rig.Opts("ForwardMode", "route"), rig.Opts()))
	r.OK(r.AddXML(rig.Lasting("runtime", 3, "nat")))
	whole := r.File(rig.NetworksDir + "/kept.xml")
	before := rig.NFT(r.Host, "-a", "list", "ruleset")

	r.Write(rig.NetworksDir+"/kept.xml", whole[:len(whole)/2])
	r.Write(rig.NetworksDir+"/fine.xml", rig.Lasting("byhand", 4, "nat"))
	r.Write(rig.ConfigFile, "firewall_backend = \"nftables\"\n")
	for range 2 {
		r.WantRefusal(r.Manager("Reload"), "InvalidArgument", rig.NetworksDir+"/kept.xml", "reload")
	}
	r.AwaitState("kept", "degraded") // its file says something else than what is in force
	r.Write(rig.NetworksDir+"/kept.xml", whole)
	r.Write(rig.NetworksDir+"/fine.xml", rig.Lasting("byhand", 3, "nat"))
	r.WantRefusal(r.Manager("Reload"), "BridgeInUse", "byhand", "runtime")
	r.Write(rig.NetworksDir+"/fine.xml", rig.NetXML("byhand", "virbr7", "nat", "10.3.0.129/25"))
	r.WantRefusal(r.Manager("Reload"), "SubnetOverlap", "byhand", "runtime")
	r.Write(rig.NetworksDir+"/fine.xml", rig.Lasting("byhand", 4, "nat"))
	r.Write(rig.ConfigFile, "firewall_backend = \"nonsense\"\n")
	r.WantRefusal(r.Manager("Reload"), "InvalidArgument", rig.ConfigFile, "nonsense")

	rig.Same(t, "failed reloads changed the kernel", before, rig.NFT(r.Host, "-a", "list", "ruleset"))
	r.WantNames("after failed reloads", "kept", "other", "runtime")
	wantMode(r, "after failed reloads", "other", "route")
	var configured godbus.Variant
	r.OK(r.Call(rig.ManagerPath, "org.freedesktop.DBus.Properties.Get", rig.ManagerName, "ConfiguredBackend"), &configured)
	if configured.Value() != "auto" {
		t.Errorf("a failed reload took the configuration: %v", configured)
	}
	r.Must("rm", rig.ConfigFile)

	// What the failed reload saw is not yet in force, and in nobody's way.
	r.Write(rig.NetworksDir+"/kept.xml", whole[:len(whole)/2])
	r.WantError(r.Manager("Reload"), "InvalidArgument")
	r.OK(r.Manager("RemoveNetwork", "kept", rig.Opts()))
	r.OK(r.AddXML(whole, "Replace", true))
	r.OK(r.Network("kept", "Update", rig.Opts("ForwardMode", "isolated"), rig.Opts()))
	if r.Property("kept", "Persistent") != true {
		t.Error("the network with the broken file is no longer persistent")
	}
	r.OK(r.Manager("RemoveNetwork", "kept", rig.Opts()))
	r.OK(r.Manager("RemoveNetwork", "runtime", rig.Opts()))
	r.Restart(true)
	r.WantNames("restarted beside the broken file", "byhand", "other")
	r.Write(rig.NetworksDir+"/kept.xml", whole)
	r.OK(r.Manager("Reload"))
	r.WantNames("file mended", "byhand", "kept", "other")
	wantMode(r, "file mended", "kept", "nat")
}
