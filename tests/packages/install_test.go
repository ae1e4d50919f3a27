package packages

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

const busName = "org.virtfirewall.NetworkFirewall1"

// sources returns a copy of the tree, without history, with its programs and
// documents built: two test runs at once must not build into one bin/.
func sources(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	rig.Must(t, copyTree(dir))
	return dir
}

func copyTree(dir string) error {
	top, err := filepath.Abs(rig.Source())
	if err != nil {
		return err
	}
	tarball := filepath.Join(dir, "tree.tar")
	out, err := exec.Command("tar", "-C", top, "--exclude=./.git", "--exclude=./bin", "-cf", tarball, ".").CombinedOutput()
	// Exit code 1: a file changed meanwhile, such as another test's.
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		return fmt.Errorf("copying the tree: %w\n%s", err, out)
	}
	if out, err := exec.Command("tar", "-C", dir, "-xf", tarball).CombinedOutput(); err != nil {
		return fmt.Errorf("copying the tree: %w\n%s", err, out)
	}
	return nil
}

func runMake(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "make", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// installed returns the files below root with their modes, and all directories.
func installed(t *testing.T, root string) (files map[string]fs.FileMode, dirs []string) {
	t.Helper()
	files = map[string]fs.FileMode{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		if d.IsDir() {
			dirs = append(dirs, name)
			if name != "" && info.Mode().Perm() != 0o755 {
				t.Errorf("the directory %s has mode %v", name, info.Mode())
			}
			return nil
		}
		files[name] = info.Mode()
		return nil
	})
	rig.Must(t, err)
	return files, dirs
}

func TestInstall(t *testing.T) {
	dir, root := sources(t), t.TempDir()
	settings := []string{"DESTDIR=" + root, "PREFIX=/opt/vf", "VERSION=7.8.9"}
	runMake(t, dir, append([]string{"install"}, settings...)...)
	files, _ := installed(t, root)
	t.Run("files", func(t *testing.T) { checkFiles(t, files) })
	t.Run("programs", func(t *testing.T) { checkPrograms(t, root) })
	t.Run("unit", func(t *testing.T) { checkUnit(t, root) })
	t.Run("manual", func(t *testing.T) { checkManual(t, root) })

	// Installing again leaves the administrator's settings as they are.
	settingsFile := filepath.Join(root, rig.ConfigFile)
	shipped, err := os.ReadFile(settingsFile)
	rig.Must(t, err)
	for _, changed := range []string{"own_table = false\n", string(shipped)} {
		rig.Must(t, os.WriteFile(settingsFile, []byte(changed), 0o600))
		runMake(t, dir, append([]string{"install"}, settings...)...)
		if now, err := os.ReadFile(settingsFile); err != nil || string(now) != changed {
			t.Errorf("installing again made the settings %q, %v", now, err)
		}
	}
	// Another program's file beside the service's is not removed.
	foreign := filepath.Join(root, "usr/share/dbus-1/system.d/other.conf")
	rig.Must(t, os.WriteFile(foreign, nil, 0o644))
	runMake(t, dir, append([]string{"uninstall"}, settings...)...)
	files, dirs := installed(t, root)
	if diff := cmp.Diff(map[string]fs.FileMode{"/usr/share/dbus-1/system.d/other.conf": 0o644}, files); diff != "" {
		t.Errorf("after uninstalling: %s", diff)
	}
	for _, d := range dirs {
		if strings.Contains(d, "virtfirewalld") {
			t.Errorf("the directory %s stays", d)
		}
	}
	runMake(t, dir, append([]string{"uninstall"}, settings...)...) // finds nothing, and is content
}

func checkFiles(t *testing.T, files map[string]fs.FileMode) {
	want := map[string]fs.FileMode{
		"/opt/vf/sbin/virtfirewalld":                                            0o755,
		"/opt/vf/bin/virtfirewallctl":                                           0o755,
		"/usr/lib/systemd/system/virtfirewalld.service":                         0o644,
		"/usr/lib/tmpfiles.d/virtfirewalld.conf":                                0o644,
		"/usr/share/dbus-1/system.d/" + busName + ".conf":                       0o644,
		"/usr/share/dbus-1/system-services/" + busName + ".service":             0o644,
		"/usr/share/dbus-1/interfaces/" + busName + ".xml":                      0o644,
		"/usr/share/polkit-1/actions/org.virtfirewall.networkfirewall1.policy":  0o644,
		"/etc/virtfirewalld/virtfirewalld.conf":                                 0o644,
		"/opt/vf/share/doc/virtfirewalld/README.md":                             0o644,
		"/opt/vf/share/doc/virtfirewalld/firewalld.md":                          0o644,
		"/opt/vf/share/doc/virtfirewalld/rules.md":                              0o644,
		"/opt/vf/share/doc/virtfirewalld/metadata.md":                           0o644,
		"/opt/vf/share/doc/virtfirewalld/benchmarks.md":                         0o644,
		"/opt/vf/share/doc/virtfirewalld/decisions.md":                          0o644,
		"/opt/vf/share/doc/virtfirewalld/documents.md":                          0o644,
		"/opt/vf/share/doc/virtfirewalld/differences.md":                        0o644,
		"/opt/vf/share/doc/virtfirewalld/findings.md":                           0o644,
		"/opt/vf/share/doc/virtfirewalld/reliability.md":                        0o644,
		"/opt/vf/share/doc/virtfirewalld/examples/client.py":                    0o644,
		"/opt/vf/share/doc/virtfirewalld/examples/client.sh":                    0o644,
		"/opt/vf/share/doc/virtfirewalld/examples/50-virtfirewalld.rules":       0o644,
		"/opt/vf/share/virtfirewalld/network-metadata.rng":                      0o644,
		"/opt/vf/share/virtfirewalld/firewalld/zones/libvirt.xml":               0o644,
		"/opt/vf/share/virtfirewalld/firewalld/zones/libvirt-routed.xml":        0o644,
		"/opt/vf/share/virtfirewalld/firewalld/policies/libvirt-routed-in.xml":  0o644,
		"/opt/vf/share/virtfirewalld/firewalld/policies/libvirt-routed-out.xml": 0o644,
		"/opt/vf/share/virtfirewalld/firewalld/policies/libvirt-to-host.xml":    0o644,
		"/opt/vf/share/man/man8/virtfirewalld.8":                                0o644,
		"/opt/vf/share/man/man5/virtfirewalld.conf.5":                           0o644,
		"/opt/vf/share/bash-completion/completions/virtfirewallctl":             0o644,
		"/opt/vf/share/zsh/site-functions/_virtfirewallctl":                     0o644,
		"/opt/vf/share/fish/vendor_completions.d/virtfirewallctl.fish":          0o644,
		"/opt/vf/share/man/man1/virtfirewallctl.1":                              0o644,
		"/opt/vf/share/man/man1/virtfirewallctl-zones-install.1":                0o644,
	}
	for name, mode := range want {
		if got, ok := files[name]; !ok || got != mode {
			t.Errorf("%s: there %v, mode %v; want mode %v", name, ok, got, mode)
		}
	}
	for name := range files {
		page, err := filepath.Match("/opt/vf/share/man/man1/virtfirewallctl*.1", name)
		if _, ok := want[name]; !ok && (err != nil || !page) {
			t.Errorf("%s is installed and ought not to be", name)
		}
	}
}

func checkPrograms(t *testing.T, root string) {
	for program, args := range map[string][]string{
		"opt/vf/sbin/virtfirewalld": {"--version"},
		// No bus: a client still prints its own version.
		"opt/vf/bin/virtfirewallctl": {"version"},
	} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(root, program), args...)
		cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS=unix:path="+root+"/no-bus")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "7.8.9") {
			t.Errorf("%s %v: %v\n%s", program, args, err, out)
		}
	}
}

func checkUnit(t *testing.T, root string) {
	text, err := os.ReadFile(filepath.Join(root, "usr/lib/systemd/system/virtfirewalld.service"))
	rig.Must(t, err)
	if !strings.Contains(string(text), "\nExecStart=/opt/vf/sbin/virtfirewalld\n") || strings.Contains(string(text), "SBINDIR") {
		t.Errorf("the unit does not start the installed program:\n%s", text)
	}
	activation, err := os.ReadFile(filepath.Join(root, "usr/share/dbus-1/system-services", busName+".service"))
	rig.Must(t, err)
	alias := "dbus-" + busName + ".service"
	if !strings.Contains(string(text), "\nAlias="+alias+"\n") || !strings.Contains(string(activation), "\nSystemdService="+alias+"\n") {
		t.Errorf("the unit and the bus disagree on the alias %s", alias)
	}
}

// checkManual reads a page that Markdown once took a word out of.
func checkManual(t *testing.T, root string) {
	text, err := os.ReadFile(filepath.Join(root, "opt/vf/share/man/man1/virtfirewallctl.1"))
	rig.Must(t, err)
	for _, want := range []string{"libvirt <network> documents", "4  not authorised", "virtfirewalld 7.8.9"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("virtfirewallctl(1) does not say %q", want)
		}
	}
}

func TestPolkitActions(t *testing.T) {
	const namespace = "org.virtfirewall.networkfirewall1"
	text, err := os.ReadFile(rig.Source("polkit", namespace+".policy"))
	rig.Must(t, err)
	var policy struct {
		Actions []struct {
			ID       string `xml:"id,attr"`
			Message  string `xml:"message"`
			Any      string `xml:"defaults>allow_any"`
			Inactive string `xml:"defaults>allow_inactive"`
			Active   string `xml:"defaults>allow_active"`
		} `xml:"action"`
	}
	rig.Must(t, xml.Unmarshal(text, &policy))
	got := map[string]string{}
	for _, a := range policy.Actions {
		got[a.ID] = a.Any
		if a.Message == "" || a.Any != a.Inactive || a.Any != a.Active {
			t.Errorf("%s: message %q, defaults %s, %s, %s", a.ID, a.Message, a.Any, a.Inactive, a.Active)
		}
	}
	want := map[string]string{
		namespace + ".read":                 "yes",
		namespace + ".manage-networks":      "auth_admin_keep",
		namespace + ".manage-port-forwards": "auth_admin_keep",
		namespace + ".manage-zones":         "auth_admin_keep",
		namespace + ".choose-backend":       "auth_admin_keep",
		namespace + ".reload":               "auth_admin_keep",
		namespace + ".diagnose":             "auth_admin_keep",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
