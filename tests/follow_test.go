package tests

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

const (
	propertiesName = "org.freedesktop.DBus.Properties"
	objectsName    = "org.freedesktop.DBus.ObjectManager"
	markerPath     = godbus.ObjectPath("/tests/marker")
)

// follower is a client that hears all signals of the service in order.
type follower struct {
	t       testing.TB
	conn    *godbus.Conn
	signals chan *godbus.Signal
	markers int
}

// Follow connects a client that hears everything from now on.
func (r *rig) Follow() *follower {
	r.t.Helper()
	// By default godbus hands signals over in any order.
	conn, err := godbus.Connect(r.BusAddress(), godbus.WithSignalHandler(godbus.NewSequentialSignalHandler()))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	f := &follower{t: r.t, conn: conn, signals: make(chan *godbus.Signal, 64)}
	conn.Signal(f.signals)
	for _, match := range [][]godbus.MatchOption{
		{godbus.WithMatchPathNamespace(managerPath)}, {godbus.WithMatchObjectPath(markerPath)},
	} {
		if err := conn.AddMatchSignal(match...); err != nil {
			r.t.Fatal(err)
		}
	}
	return f
}

// next is the next signal, in words.
func (f *follower) next() string {
	f.t.Helper()
	return f.nextBy(time.Now().Add(host.Patient(callTimeout)))
}

func (f *follower) nextBy(deadline time.Time) string {
	f.t.Helper()
	for {
		select {
		case s := <-f.signals:
			if s.Name != "org.freedesktop.DBus.NameAcquired" {
				return words(s)
			}
		case <-time.After(time.Until(deadline)):
			f.t.Fatal("no signal came")
		}
	}
}

// until gives the signals up to the first that contains all of want.
func (f *follower) until(want ...string) (heard []string) {
	f.t.Helper()
	deadline := time.Now().Add(host.Patient(callTimeout))
	defer func() {
		if f.t.Failed() {
			f.t.Logf("waiting for %q, heard:\n%s", want, strings.Join(heard, "\n"))
		}
	}()
	for {
		heard = append(heard, f.nextBy(deadline))
		if containsAll(heard[len(heard)-1], want) {
			return heard
		}
	}
}

func containsAll(text string, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(text, w) })
}

// all gives the signals that were sent by now: those before one of its own.
func (f *follower) all() (heard []string) {
	f.t.Helper()
	f.markers++
	name := fmt.Sprintf("tests.Marker%d", f.markers)
	if err := f.conn.Emit(markerPath, name+".Here"); err != nil {
		f.t.Fatal(err)
	}
	for {
		text := f.next()
		if text == "Here" {
			return heard
		}
		heard = append(heard, text)
	}
}

// words is a signal on one line: its name, the object where it is not the
// manager, and what it says. Properties stand in alphabetical order.
func words(s *godbus.Signal) string {
	member := strings.TrimPrefix(path.Ext(s.Name), ".")
	out := []string{member}
	if s.Path != managerPath && s.Path != markerPath {
		out = append(out, path.Base(string(s.Path)))
	}
	for _, v := range s.Body {
		switch v := v.(type) {
		case map[string]godbus.Variant:
			out = append(out, values(v))
		case map[string]map[string]godbus.Variant:
			out = append(out, fmt.Sprint(slices.Sorted(maps.Keys(v))))
		case []string:
			if len(v) > 0 || member != "PropertiesChanged" {
				out = append(out, fmt.Sprint(v))
			}
		case godbus.ObjectPath:
			out = append(out, path.Base(string(v)))
		default:
			if v != managerName && v != networkName {
				out = append(out, fmt.Sprint(v))
			}
		}
	}
	return strings.Join(out, " ")
}

func values(m map[string]godbus.Variant) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%s=%v", name, m[name].Value()))
	}
	return strings.Join(out, " ")
}

// everything is all that a failed call must not have changed: the kernel's
// rules, files, forwarding, firewalld's bindings, and what the bus shows.
func (r *rig) everything() map[string]string {
	r.t.Helper()
	var objects map[godbus.ObjectPath]map[string]map[string]godbus.Variant
	r.must(r.Call(managerPath, objectsName+".GetManagedObjects"), &objects)
	all := map[string]string{
		"rules": withoutCounters(othersTables.ReplaceAllString(nft(r.Host, "list", "ruleset"), "")),
		"files": r.Must("sh", "-c", "cd / && find etc/virtfirewalld run/virtfirewalld -type f ! -name counters.json "+
			"-exec sha256sum {} + 2>/dev/null | sort -k2"),
		"sysctls": r.Must("sysctl", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"),
		"zones":   fmt.Sprint(r.zonesInForce()),
	}
	for path, interfaces := range objects {
		all[string(path)] = values(interfaces[networkName])
	}
	return all
}

// zonesInForce are firewalld's bindings; none without firewalld.
func (r *rig) zonesInForce() (zones map[string]map[string][]string) {
	r.t.Helper()
	call := r.firewalldCall("zone.getActiveZones")
	if call.Err == nil {
		r.must(call, &zones)
	}
	return zones
}

// othersTables are left out of comparisons. firewalld keeps the chains of a
// zone that was in use once: what counts of it is in zonesInForce. The mangle
// table is iptables', and what the service has in it follows in its own time.
var othersTables = regexp.MustCompile(`(?ms)^# Warning: .*?\n|^table (inet firewalld|ip mangle) \{.*?^\}\n`)

// counterValues are what changes by itself in a listing.
var counterValues = regexp.MustCompile(`packets \d+ bytes \d+`)

func withoutCounters(listing string) string {
	return counterValues.ReplaceAllString(listing, "packets 0 bytes 0")
}

// until waits for something that follows in its own time.
func (r *rig) until(what string, happened func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(host.Patient(callTimeout)); !happened(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("it did not happen within %s: %s", host.Patient(callTimeout), what)
		}
	}
}
