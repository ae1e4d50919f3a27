package packages

import (
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestFlush takes out all that the service made, under both backends, whether
// or not its settings can be read, and leaves what a next start needs.
func TestFlush(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		backend, settings string
		code              int
	}{
		"nftables": {"nftables", "", 0}, "iptables": {"iptables", "firewall_backend = \"iptables\"\n", 0},
		"broken settings": {"iptables", "firewall_backend = nonsense\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rig.New(t)
			r.Firewalld.Start("nftables")
			r.StartDaemon()
			r.Bridge("virbr0", rig.NatNet)
			r.Must("virtfirewallctl", "zones", "install", "--force")
			r.OK(r.AddXML(rig.NetXML("kept", "virbr0", "nat", rig.NatNet), "Persistent", true))
			r.OK(r.AddXML(rig.NetXML("passing", "virbr7", "isolated", "10.7.0.1/24")))
			r.Announce(rig.Uncovered)
			r.OK(r.Manager("SetBackend", c.backend, rig.Opts()))
			r.Firewalld.WantZone("kept", "virbr0", "libvirt")
			if out, err := r.Run("virtfirewalld", "--flush"); err == nil || !strings.Contains(out, "stop the other virtfirewalld first") {
				t.Errorf("beside a service that runs: %v\n%s", err, out)
			}
			if names := r.Names(); len(names) != 2 {
				t.Errorf("after a flush that was refused there are %v", names)
			}
			r.StopDaemon()
			if rulesOfOurs(r) == "" {
				t.Error("there is nothing to flush")
			}
			if c.settings != "" {
				r.Write(rig.ConfigFile, c.settings)
			}
			out, err := r.Run("virtfirewalld", "--flush")
			r.WantExit(c.code, out, err, []string{"--flush"})
			nothingLeft(r)
			if out, err = r.Run("virtfirewalld", "--flush"); err != nil {
				t.Errorf("with nothing to flush: %v\n%s", err, out)
			}
			r.Must("rm", "-f", rig.ConfigFile)
			r.StartDaemon()
			r.WantNames("started again", "kept")
			r.AwaitState("kept", "active")
		})
	}
}

// TestFlushWithoutABus takes the rules out all the same.
func TestFlushWithoutABus(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			r := rig.Started(t)
			r.Announce(rig.Uncovered)
			r.OK(r.AddXML(rig.NetXML("passing", "virbr7", "nat", "10.7.0.1/24")))
			r.OK(r.Manager("SetBackend", backend, rig.Opts()))
			r.StopDaemon()
			out, err := r.Run("env", "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere", "virtfirewalld", "--flush")
			r.WantExit(1, out, err, []string{"--flush"})
			rig.WantText(t, "a flush without a bus", out, "/nowhere")
			nothingLeft(r)
		})
	}
}

// rulesOfOurs returns the lines of the kernel's rules that the service could have
// made, or firewalld for a bridge in a zone.
func rulesOfOurs(r *rig.Rig) string {
	r.T.Helper()
	var found []string
	for line := range strings.Lines(r.Must("nft", "list", "ruleset") + r.Must("iptables-legacy-save") + r.Must("ip6tables-legacy-save")) {
		if strings.Contains(line, "libvirt_network") || strings.Contains(line, "LIBVIRT_") || strings.Contains(line, "virbr") {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

func nothingLeft(r *rig.Rig) {
	r.T.Helper()
	if rules := rulesOfOurs(r); rules != "" {
		r.T.Errorf("rules are left:\n%s", rules)
	}
	if files := r.Must("find", rig.RuntimeDir, "-mindepth", "1"); files != "" {
		r.T.Errorf("files are left:\n%s", files)
	}
}
