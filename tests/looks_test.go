package tests

import (
	"strings"
	"testing"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// TestLooksDoNotStartTheService: who stopped the service does not want it
// started by somebody who looks. What changes something may.
func TestLooksDoNotStartTheService(t *testing.T) {
	t.Parallel()
	for name, option := range map[string]host.Option{"dbus-daemon": host.Booted(), "dbus-broker": host.WithBroker()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := unitRig(t, option)
			r.looks(t)
			r.cannotStart(t)
		})
	}
}

func (r *rig) looks(t *testing.T) {
	r.must(r.AddXML(lab("lab", 5)))
	if err := r.WriteFile("/root/lab.xml", []byte(lab("other", 6)), 0o644); err != nil {
		t.Fatal(err)
	}
	r.Must("systemctl", "stop", "virtfirewalld")
	for _, args := range [][]string{{"list"}, {"show", "lab"}, {"status"}, {"rules"}, {"counters"}, {"doctor"}, {"zones", "list"},
		{"backend"}, {"preview", "/root/lab.xml"}, {"monitor"}} {
		contains(t, strings.Join(args, " "), r.ctl(5, args...), "virtfirewalld is not running", "systemctl start virtfirewalld")
	}
	r.ctl(0, "version")
	r.ctl(0, "__complete", "show", "")
	if state := r.unitProperty("ActiveState"); state != "inactive" {
		t.Fatalf("a look made the unit %s", state)
	}
	r.ctl(0, "add", "/root/lab.xml")
	if state := r.unitProperty("ActiveState"); state != "active" {
		t.Errorf("after a change the unit is %s", state)
	}
}

// cannotStart has every reason why the service cannot be started by a call.
func (r *rig) cannotStart(t *testing.T) {
	both := func(want ...string) {
		t.Helper()
		for _, args := range [][]string{{"list"}, {"add", "/root/lab.xml"}} {
			contains(t, strings.Join(args, " "), r.ctl(5, args...), want...)
		}
	}
	r.Must("systemctl", "disable", "--now", "virtfirewalld")
	both("virtfirewalld is not running", "systemctl enable --now virtfirewalld")
	r.Must("systemctl", "enable", "virtfirewalld")

	r.Must("systemctl", "mask", "virtfirewalld")
	both("virtfirewalld is masked", "systemctl unmask virtfirewalld")
	r.Must("systemctl", "unmask", "virtfirewalld")

	mend := r.withoutBackend()
	_, _ = r.Run("systemctl", "start", "virtfirewalld")
	r.until("systemd gives up", func() bool { return r.unitProperty("ActiveState") == "failed" })
	both("virtfirewalld failed", "journalctl -u virtfirewalld")
	mend()
	r.Must("systemctl", "reset-failed", "virtfirewalld")

	r.Must("systemctl", "disable", "virtfirewalld")
	r.Must("sh", "-c", "find /usr/lib/systemd /lib/systemd -name virtfirewalld.service -delete; systemctl daemon-reload")
	both("virtfirewalld is not installed", "install the package virtfirewalld")
}
