package rig

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	godbus "github.com/godbus/dbus/v5"
)

// Everything returns all that a failed call must not have changed: the kernel's
// rules, files, forwarding, firewalld's bindings, and what the bus shows.
func (r *Rig) Everything() map[string]string {
	r.T.Helper()
	var objects map[godbus.ObjectPath]map[string]map[string]godbus.Variant
	r.OK(r.Call(ManagerPath, ObjectsName+".GetManagedObjects"), &objects)
	all := map[string]string{
		"rules":   WithoutCounters(othersTables.ReplaceAllString(NFT(r.Host, "list", "ruleset"), "")),
		"sysctls": r.Sysctl(Forward4) + " " + r.Sysctl(Forward6),
		"zones":   fmt.Sprint(r.Firewalld.active()),
	}
	maps.Copy(all, r.ownFiles())
	for path, interfaces := range objects {
		all[string(path)] = Values(interfaces[NetworkName])
	}
	return all
}

// ownFiles returns the service's files with what they hold, but for the counters,
// which are saved at any time.
func (r *Rig) ownFiles() map[string]string {
	r.T.Helper()
	files := map[string]string{}
	Must(r.T, r.Inside(func() error {
		for _, dir := range []string{filepath.Dir(ConfigFile), RuntimeDir} {
			err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.Type().IsRegular() && d.Name() != "counters.json" {
					var text []byte
					if text, err = os.ReadFile(path); err == nil {
						files[path] = string(text)
					}
				}
				if errors.Is(err, fs.ErrNotExist) {
					return nil // such as a temporary file that has its name by now
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	}))
	return files
}

// othersTables are left out of comparisons. firewalld keeps the chains of a
// zone that was in use once: what counts of it are the active zones. The mangle
// table is iptables', and what the service has in it follows in its own time.
var othersTables = regexp.MustCompile(`(?ms)^# Warning: .*?\n|^table (inet firewalld|ip mangle) \{.*?^\}\n`)

// NotBelow checks that no counter went back, and returns what they are now.
func (r *Rig) NotBelow(when, network string, before map[string]uint64) map[string]uint64 {
	r.T.Helper()
	now := r.Counters(network)
	for name, value := range before {
		if now[name] < value {
			r.T.Errorf("%s: counter %s of %s went from %d back to %d", when, name, network, value, now[name])
		}
	}
	return now
}

// Reapply makes the service compare everything, and returns how many networks it
// repaired.
func (r *Rig) Reapply() (repairs uint32) {
	r.T.Helper()
	r.OK(r.Manager("Reapply"), &repairs)
	return repairs
}

// Ctl runs virtfirewallctl, which must end with the exit code.
func (r *Rig) Ctl(code int, args ...string) string {
	r.T.Helper()
	out, err := r.Run(append([]string{"virtfirewallctl"}, args...)...)
	r.WantExit(code, out, err, append([]string{"virtfirewallctl"}, args...))
	return out
}

// WantExit checks how a command ended that Run has run.
func (r *Rig) WantExit(code int, out string, err error, args []string) {
	r.T.Helper()
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		r.T.Fatal(err)
	}
	if got != code {
		r.T.Errorf("%q ended with %d, not %d:\n%s", args, got, code, out)
	}
}

// Node is introspection data.
type Node struct {
	Interfaces []struct {
		Name    string `xml:"name,attr"`
		Members []struct {
			XMLName xml.Name
			Attrs   []xml.Attr `xml:",any,attr"`
			Inner   string     `xml:",innerxml"`
		} `xml:",any"`
	} `xml:"interface"`
	Children []struct {
		Name string `xml:"name,attr"`
	} `xml:"node"`
}

// Introspect returns the introspection document of an object.
func (r *Rig) Introspect(path godbus.ObjectPath) (doc string) {
	r.T.Helper()
	r.OK(r.Call(path, "org.freedesktop.DBus.Introspectable.Introspect"), &doc)
	return doc
}
