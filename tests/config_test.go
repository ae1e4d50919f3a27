package tests

import (
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"
)

// findings are the Ids of what Diagnose answers.
func (r *rig) findingIDs() string {
	r.t.Helper()
	var all []map[string]godbus.Variant
	r.must(r.Manager("Diagnose"), &all)
	var ids []string
	for _, f := range all {
		if id, ok := f["Id"].Value().(string); ok {
			ids = append(ids, id)
		}
	}
	return strings.Join(ids, " ")
}

// TestConfigurationThatCannotBeUsed at a start: the rules hold and are kept, as
// the last good configuration says. At a reload nothing changes.
func TestConfigurationThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.Announce(uncovered, "the configuration cannot be used")
	r.write(configFile, "firewall_backend = \"iptables\"\n")
	r.StartDaemon()
	r.Bridge("virbr7", "10.7.0.1/24", "2001:db8:7::1/64")
	guest, internet := r.Guest("virbr7", "guest", "10.7.0.10/24", "2001:db8:7::10/64"), r.Internet()
	r.Must("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	r.must(r.AddXML(netXML("closed", "virbr7", "isolated", "10.7.0.1/24", "2001:db8:7::1/64"), "Persistent", true))
	rules := savedRules(t, r.Host)
	for way, spoil := range map[string][]string{
		"mode": {"chmod", "666", configFile}, "owner": {"chown", "nobody", configFile},
		"pipe":      {"sh", "-c", "rm " + configFile + "; mkfifo " + configFile},
		"long line": {"sh", "-c", "head -c 70000 /dev/zero | tr '\\0' x >" + configFile},
		"zero":      {"sh", "-c", "head -c 10 /dev/zero >" + configFile},
		"nonsense":  {"sh", "-c", "echo nonsense >" + configFile},
		"libvirt's": {"sh", "-c", "mkdir -p /etc/libvirt; rm -f /etc/libvirt/network.conf; mkfifo /etc/libvirt/network.conf"},
	} {
		r.Must(spoil...)
		refusal, file := r.Manager("Reload"), configFile
		if way == "libvirt's" {
			file = "/etc/libvirt/network.conf"
		}
		r.wantRefusal(refusal, "InvalidArgument", file)
		r.restart(true)
		r.wantNames(way, "closed")
		refused(t, guest, internet, way)
		if now := savedRules(t, r.Host); now != rules {
			t.Errorf("%s: the rules became\n%s", way, now)
		}
		if log := r.Daemon.Log(); !strings.Contains(log, file) {
			t.Errorf("%s: the log does not name %s:\n%s", way, file, log)
		}
		if ids := r.findingIDs(); !strings.Contains(ids, "configuration-unusable") {
			t.Errorf("%s: the findings are %q", way, ids)
		}
		r.Must("rm", "-f", configFile, "/etc/libvirt/network.conf")
		r.write(configFile, "firewall_backend = \"iptables\"\n")
		r.must(r.Manager("Reload"))
		if ids := r.findingIDs(); strings.Contains(ids, "configuration-unusable") {
			t.Errorf("%s, mended: the findings are %q", way, ids)
		}
	}
}

// TestFullDisk: what cannot be written is refused before anything is moved, and
// nothing half written stays.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	r := startedRig(t)
	r.Announce(uncovered, "the record of")
	r.Bridge("virbr7", "10.7.0.1/24")
	r.must(r.AddXML(netXML("lab", "virbr7", "nat", "10.7.0.1/24"), "Persistent", true))
	fill := func(dir string) {
		t.Helper()
		r.Must("sh", "-c", "cp -a "+dir+" /tmp/was; mount -t tmpfs -o size=256k,mode=755 full "+dir+"; cp -a /tmp/was/. "+dir+"; rm -rf /tmp/was; cat /dev/zero >"+dir+"/fill 2>/dev/null; true")
	}
	left := func(dir string) string {
		return r.Must("find", dir, "-name", "*.new*", "-o", "-name", ".virtfirewalld*", "-o", "-name", ".*.new")
	}
	table := r.Table()
	fill("/etc/virtfirewalld")
	r.wantRefusal(r.Manager("SetBackend", "iptables", opts("Persistent", true)), "ApplyFailed", "no space left")
	r.wantError(r.AddXML(netXML("more", "virbr8", "nat", "10.8.0.1/24"), "Persistent", true), "ApplyFailed")
	if now := r.Table(); now != table {
		t.Errorf("the rules became\n%s", now)
	}
	if files := left("/etc/virtfirewalld"); files != "" {
		t.Errorf("left on the full disk: %s", files)
	}
	r.Must("umount", "/etc/virtfirewalld")

	fill(runtimeDir)
	r.must(r.Manager("RemoveNetwork", "lab", opts("Persistent", true)))        // what takes no room still works
	r.Must("sh", "-c", "cat /dev/zero >"+runtimeDir+"/more 2>/dev/null; true") // the removal made room
	r.wantError(r.AddXML(netXML("more", "virbr8", "nat", "10.8.0.1/24")), "ApplyFailed")
	if files := left(runtimeDir); files != "" {
		t.Errorf("left on the full disk: %s", files)
	}
	r.wantNames("on a full disk")
	r.Must("umount", runtimeDir)

	r.must(r.AddXML(netXML("lab", "virbr7", "nat", "10.7.0.1/24")))
	fill(runtimeDir)
	call := r.Manager("SetBackend", "iptables", opts())
	r.wantError(call, "ApplyFailed")
	if files := left(runtimeDir); files != "" {
		t.Errorf("left by iptables' records: %s", files)
	}
	if r.Table() == "" {
		t.Error("the rules went with a move that failed")
	}
	r.Must("umount", runtimeDir)
}

// TestSetBackendThroughALink writes what the link leads to, or refuses.
func TestSetBackendThroughALink(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.Announce(uncovered)
	r.write("/etc/elsewhere/real.conf", "own_table = false\n")
	r.Must("mkdir", "-p", "/etc/virtfirewalld")
	r.Must("ln", "-s", "/etc/elsewhere/real.conf", configFile)
	r.StartDaemon()
	r.must(r.Manager("SetBackend", "iptables", opts("Persistent", true)))
	if to := strings.TrimSpace(r.Must("readlink", configFile)); to != "/etc/elsewhere/real.conf" {
		t.Errorf("the link leads to %s", to)
	}
	if text := r.file("/etc/elsewhere/real.conf"); !strings.Contains(text, `firewall_backend = "iptables"`) || !strings.Contains(text, "own_table = false") {
		t.Errorf("the file has %q", text)
	}
	r.Must("chmod", "777", "/etc/elsewhere")
	r.wantRefusal(r.Manager("SetBackend", "nftables", opts("Persistent", true)), "InvalidArgument", "/etc/elsewhere", "chmod")
}
