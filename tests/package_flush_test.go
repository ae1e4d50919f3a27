package tests

import (
	"strings"
	"testing"
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
			r := newRig(t)
			r.Firewalld("nftables")
			r.StartDaemon()
			r.Bridge("virbr0", natNet)
			r.Must("virtfirewallctl", "zones", "install", "--force")
			r.must(r.AddXML(netXML("kept", "virbr0", "nat", natNet), "Persistent", true))
			r.must(r.AddXML(netXML("passing", "virbr7", "isolated", "10.7.0.1/24")))
			r.Announce(uncovered)
			r.must(r.Manager("SetBackend", c.backend, opts()))
			r.wantZone("kept", "virbr0", "libvirt")
			if out, err := r.Run("virtfirewalld", "--flush"); err == nil || !strings.Contains(out, "stop the other virtfirewalld first") {
				t.Errorf("beside a service that runs: %v\n%s", err, out)
			}
			if names := r.names(); len(names) != 2 {
				t.Errorf("after a flush that was refused there are %v", names)
			}
			r.StopDaemon()
			if r.rulesOfOurs() == "" {
				t.Error("there is nothing to flush")
			}
			if c.settings != "" {
				r.write(configFile, c.settings)
			}
			out, err := r.Run("virtfirewalld", "--flush")
			r.ended(c.code, out, err, []string{"--flush"})
			r.nothingLeft()
			if out, err = r.Run("virtfirewalld", "--flush"); err != nil {
				t.Errorf("with nothing to flush: %v\n%s", err, out)
			}
			r.Must("rm", "-f", configFile)
			r.StartDaemon()
			r.wantNames("started again", "kept")
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
			r := startedRig(t)
			r.Announce(uncovered)
			r.must(r.AddXML(netXML("passing", "virbr7", "nat", "10.7.0.1/24")))
			r.must(r.Manager("SetBackend", backend, opts()))
			r.StopDaemon()
			out, err := r.Run("env", "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere", "virtfirewalld", "--flush")
			r.ended(1, out, err, []string{"--flush"})
			contains(t, "a flush without a bus", out, "/nowhere")
			r.nothingLeft()
		})
	}
}

// rulesOfOurs are the lines of the kernel's rules that the service could have
// made, or firewalld for a bridge in a zone.
func (r *rig) rulesOfOurs() string {
	r.t.Helper()
	var found []string
	for line := range strings.Lines(r.Must("nft", "list", "ruleset") + r.Must("iptables-legacy-save") + r.Must("ip6tables-legacy-save")) {
		if strings.Contains(line, "libvirt_network") || strings.Contains(line, "LIBVIRT_") || strings.Contains(line, "virbr") {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

func (r *rig) nothingLeft() {
	r.t.Helper()
	if rules := r.rulesOfOurs(); rules != "" {
		r.t.Errorf("rules are left:\n%s", rules)
	}
	if files := r.Must("find", runtimeDir, "-mindepth", "1"); files != "" {
		r.t.Errorf("files are left:\n%s", files)
	}
}
