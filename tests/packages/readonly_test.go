package packages

import (
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// TestLooksDoNotStartTheService: a service that was stopped on purpose must not
// be started by a read-only command. Commands that change something may start it.
func TestLooksDoNotStartTheService(t *testing.T) {
	t.Parallel()
	for name, option := range map[string]host.Option{"dbus-daemon": host.Booted(), "dbus-broker": host.WithBroker()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := unitRig(t, option)
			looks(r, t)
			cannotStart(r, t)
		})
	}
}

func looks(r *rig.Rig, t *testing.T) {
	r.OK(r.AddXML(rig.Lab("lab", 5)))
	r.Write("/root/lab.xml", rig.Lab("other", 6))
	r.Must("systemctl", "stop", "virtfirewalld")
	for _, args := range [][]string{{"list"}, {"show", "lab"}, {"status"}, {"rules"}, {"counters"}, {"doctor"}, {"zones", "list"},
		{"backend"}, {"preview", "/root/lab.xml"}, {"monitor"}} {
		rig.WantText(t, strings.Join(args, " "), r.Ctl(5, args...), "virtfirewalld is not running", "systemctl start virtfirewalld")
	}
	r.Ctl(0, "version")
	r.Ctl(0, "__complete", "show", "")
	if state := unitProperty(r, "ActiveState"); state != "inactive" {
		t.Fatalf("a look made the unit %s", state)
	}
	r.Ctl(0, "add", "/root/lab.xml")
	if state := unitProperty(r, "ActiveState"); state != "active" {
		t.Errorf("after a change the unit is %s", state)
	}
}

// cannotStart has every reason why the service cannot be started by a call.
func cannotStart(r *rig.Rig, t *testing.T) {
	both := func(want ...string) {
		t.Helper()
		for _, args := range [][]string{{"list"}, {"add", "/root/lab.xml"}} {
			rig.WantText(t, strings.Join(args, " "), r.Ctl(5, args...), want...)
		}
	}
	r.Must("systemctl", "disable", "--now", "virtfirewalld")
	both("virtfirewalld is not running", "systemctl enable --now virtfirewalld")
	r.Must("systemctl", "enable", "virtfirewalld")

	r.Must("systemctl", "mask", "virtfirewalld")
	both("virtfirewalld is masked", "systemctl unmask virtfirewalld")
	r.Must("systemctl", "unmask", "virtfirewalld")

	mend := withoutBackend(r)
	_, _ = r.Run("systemctl", "start", "virtfirewalld")
	r.Until("systemd gives up", func() bool { return unitProperty(r, "ActiveState") == "failed" })
	both("virtfirewalld failed", "journalctl -u virtfirewalld")
	mend()
	r.Must("systemctl", "reset-failed", "virtfirewalld")

	r.Must("systemctl", "disable", "virtfirewalld")
	r.Must("sh", "-c", "find /usr/lib/systemd /lib/systemd -name virtfirewalld.service -delete; systemctl daemon-reload")
	both("virtfirewalld is not installed", "install the package virtfirewalld")
}
