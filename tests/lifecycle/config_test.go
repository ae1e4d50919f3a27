package lifecycle

import (
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// findings are the Ids of what Diagnose answers.
func findingIDs(r *rig.Rig) string {
	r.T.Helper()
	var all []map[string]godbus.Variant
	r.OK(r.Manager("Diagnose"), &all)
	var ids []string
	for _, f := range all {
		if id, ok := f["Id"].Value().(string); ok {
			ids = append(ids, id)
		}
	}
	return strings.Join(ids, " ")
}

// TestConfigurationThatCannotBeUsed at a start: the rules hold and are kept,
// according to the last good configuration. At a reload nothing changes.
func TestConfigurationThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Announce(rig.Uncovered, "the configuration cannot be used")
	r.Write(rig.ConfigFile, "firewall_backend = \"iptables\"\n")
	r.StartDaemon()
	r.Bridge("virbr7", "10.7.0.1/24", "2001:db8:7::1/64")
	guest, internet := r.Guest("virbr7", "guest", "10.7.0.10/24", "2001:db8:7::10/64"), r.Internet()
	r.Must("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	r.OK(r.AddXML(rig.NetXML("closed", "virbr7", "isolated", "10.7.0.1/24", "2001:db8:7::1/64"), "Persistent", true))
	rules := rig.SavedRules(t, r.Host)
	for way, spoil := range map[string][]string{
		"mode": {"chmod", "666", rig.ConfigFile}, "owner": {"chown", "nobody", rig.ConfigFile},
		"pipe":      {"sh", "-c", "rm " + rig.ConfigFile + "; mkfifo " + rig.ConfigFile},
		"long line": {"sh", "-c", "head -c 70000 /dev/zero | tr '\\0' x >" + rig.ConfigFile},
		"zero":      {"sh", "-c", "head -c 10 /dev/zero >" + rig.ConfigFile},
		"nonsense":  {"sh", "-c", "echo nonsense >" + rig.ConfigFile},
		"libvirt's": {"sh", "-c", "mkdir -p /etc/libvirt; rm -f /etc/libvirt/network.conf; mkfifo /etc/libvirt/network.conf"},
	} {
		r.Must(spoil...)
		refusal, file := r.Manager("Reload"), rig.ConfigFile
		if way == "libvirt's" {
			file = "/etc/libvirt/network.conf"
		}
		r.WantRefusal(refusal, "InvalidArgument", file)
		r.Restart(true)
		r.WantNames(way, "closed")
		refused(t, guest, internet, way)
		rig.Same(t, way+": the rules", rules, rig.SavedRules(t, r.Host))
		if log := r.Daemon.Log(); !strings.Contains(log, file) {
			t.Errorf("%s: the log does not name %s:\n%s", way, file, log)
		}
		if ids := findingIDs(r); !strings.Contains(ids, "configuration-unusable") {
			t.Errorf("%s: the findings are %q", way, ids)
		}
		r.Must("rm", "-f", rig.ConfigFile, "/etc/libvirt/network.conf")
		r.Write(rig.ConfigFile, "firewall_backend = \"iptables\"\n")
		r.OK(r.Manager("Reload"))
		if ids := findingIDs(r); strings.Contains(ids, "configuration-unusable") {
			t.Errorf("%s, mended: the findings are %q", way, ids)
		}
	}
}

// TestFullDisk: what cannot be written is refused before anything is moved, and
// nothing half written stays.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	r := rig.Started(t)
	r.Announce(rig.Uncovered, "the record of")
	r.Bridge("virbr7", "10.7.0.1/24")
	r.OK(r.AddXML(rig.NetXML("lab", "virbr7", "nat", "10.7.0.1/24"), "Persistent", true))
	fill := func(dir string) {
		t.Helper()
		r.Must("sh", "-c", "cp -a "+dir+" /tmp/was; mount -t tmpfs -o size=256k,mode=755 full "+dir+"; cp -a /tmp/was/. "+dir+"; rm -rf /tmp/was; cat /dev/zero >"+dir+"/fill 2>/dev/null; true")
	}
	left := func(dir string) string {
		return r.Must("find", dir, "-name", "*.new*", "-o", "-name", ".virtfirewalld*", "-o", "-name", ".*.new")
	}
	table := r.Table()
	fill("/etc/virtfirewalld")
	r.WantRefusal(r.Manager("SetBackend", "iptables", rig.Opts("Persistent", true)), "ApplyFailed", "no space left")
	r.WantError(r.AddXML(rig.NetXML("more", "virbr8", "nat", "10.8.0.1/24"), "Persistent", true), "ApplyFailed")
	rig.Same(t, "the rules", table, r.Table())
	if files := left("/etc/virtfirewalld"); files != "" {
		t.Errorf("left on the full disk: %s", files)
	}
	r.Must("umount", "/etc/virtfirewalld")

	fill(rig.RuntimeDir)
	r.OK(r.Manager("RemoveNetwork", "lab", rig.Opts("Persistent", true)))          // what takes no room still works
	r.Must("sh", "-c", "cat /dev/zero >"+rig.RuntimeDir+"/more 2>/dev/null; true") // the removal made room
	r.WantError(r.AddXML(rig.NetXML("more", "virbr8", "nat", "10.8.0.1/24")), "ApplyFailed")
	if files := left(rig.RuntimeDir); files != "" {
		t.Errorf("left on the full disk: %s", files)
	}
	r.WantNames("on a full disk")
	r.Must("umount", rig.RuntimeDir)

	r.OK(r.AddXML(rig.NetXML("lab", "virbr7", "nat", "10.7.0.1/24")))
	fill(rig.RuntimeDir)
	call := r.Manager("SetBackend", "iptables", rig.Opts())
	r.WantError(call, "ApplyFailed")
	if files := left(rig.RuntimeDir); files != "" {
		t.Errorf("left by iptables' records: %s", files)
	}
	if r.Table() == "" {
		t.Error("the rules went with a move that failed")
	}
	r.Must("umount", rig.RuntimeDir)
}

// TestSetBackendThroughALink writes what the link leads to, or refuses.
func TestSetBackendThroughALink(t *testing.T) {
	t.Parallel()
	r := rig.New(t)
	r.Announce(rig.Uncovered)
	r.Write("/etc/elsewhere/real.conf", "own_table = false\n")
	r.Must("mkdir", "-p", "/etc/virtfirewalld")
	r.Must("ln", "-s", "/etc/elsewhere/real.conf", rig.ConfigFile)
	r.StartDaemon()
	r.OK(r.Manager("SetBackend", "iptables", rig.Opts("Persistent", true)))
	if to := strings.TrimSpace(r.Must("readlink", rig.ConfigFile)); to != "/etc/elsewhere/real.conf" {
		t.Errorf("the link leads to %s", to)
	}
	if text := r.File("/etc/elsewhere/real.conf"); !strings.Contains(text, `firewall_backend = "iptables"`) || !strings.Contains(text, "own_table = false") {
		t.Errorf("the file has %q", text)
	}
	r.Must("chmod", "777", "/etc/elsewhere")
	r.WantRefusal(r.Manager("SetBackend", "nftables", rig.Opts("Persistent", true)), "InvalidArgument", "/etc/elsewhere", "chmod")
}
