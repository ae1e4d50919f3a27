package rig

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

const markerPath = godbus.ObjectPath("/tests/marker")

// Follower is a client that hears all signals of the service in order.
type Follower struct {
	t       testing.TB
	conn    *godbus.Conn
	signals chan *godbus.Signal
	markers int
}

// Follow connects a client that hears everything from now on.
func (r *Rig) Follow() *Follower {
	r.T.Helper()
	// By default godbus hands signals over in any order.
	conn, err := godbus.Connect(r.BusAddress(), godbus.WithSignalHandler(godbus.NewSequentialSignalHandler()))
	Must(r.T, err)
	r.T.Cleanup(func() { conn.Close() })
	f := &Follower{t: r.T, conn: conn, signals: make(chan *godbus.Signal, 64)}
	conn.Signal(f.signals)
	for _, match := range [][]godbus.MatchOption{
		{godbus.WithMatchPathNamespace(ManagerPath)}, {godbus.WithMatchObjectPath(markerPath)},
	} {
		Must(r.T, conn.AddMatchSignal(match...))
	}
	return f
}

func (f *Follower) next(deadline time.Time) string {
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

// Until returns the signals, in words, up to the first that contains all of want.
func (f *Follower) Until(want ...string) (heard []string) {
	f.t.Helper()
	deadline := time.Now().Add(host.Patient(CallTimeout))
	defer func() {
		if f.t.Failed() {
			f.t.Logf("waiting for %q, heard:\n%s", want, strings.Join(heard, "\n"))
		}
	}()
	for {
		heard = append(heard, f.next(deadline))
		if HasAll(heard[len(heard)-1], want) {
			return heard
		}
	}
}

// All returns the signals, in words, that were sent by now: those before one of
// its own.
func (f *Follower) All() (heard []string) {
	f.t.Helper()
	f.markers++
	name := fmt.Sprintf("tests.Marker%d", f.markers)
	Must(f.t, f.conn.Emit(markerPath, name+".Here"))
	for {
		text := f.next(time.Now().Add(host.Patient(CallTimeout)))
		if text == "Here" {
			return heard
		}
		heard = append(heard, text)
	}
}

// words returns a signal on one line: its name, its object unless that is the
// manager, and its arguments. Properties are in alphabetical order.
func words(s *godbus.Signal) string {
	member := strings.TrimPrefix(path.Ext(s.Name), ".")
	out := []string{member}
	if s.Path != ManagerPath && s.Path != markerPath {
		out = append(out, path.Base(string(s.Path)))
	}
	for _, v := range s.Body {
		switch v := v.(type) {
		case map[string]godbus.Variant:
			out = append(out, Values(v))
		case map[string]map[string]godbus.Variant:
			out = append(out, fmt.Sprint(slices.Sorted(maps.Keys(v))))
		case []string:
			if len(v) > 0 || member != "PropertiesChanged" {
				out = append(out, fmt.Sprint(v))
			}
		case godbus.ObjectPath:
			out = append(out, path.Base(string(v)))
		default:
			if v != ManagerName && v != NetworkName {
				out = append(out, fmt.Sprint(v))
			}
		}
	}
	return strings.Join(out, " ")
}

// Values returns properties on one line, in alphabetical order.
func Values(m map[string]godbus.Variant) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%s=%v", name, m[name].Value()))
	}
	return strings.Join(out, " ")
}

// Repairs listens for Repaired signals, and returns what came so far by network.
func (r *Rig) Repairs() func() map[string][]string {
	r.T.Helper()
	conn, err := r.DialBus(context.Background())
	Must(r.T, err)
	r.T.Cleanup(func() { conn.Close() })
	signals := make(chan *godbus.Signal, 4096)
	conn.Signal(signals)
	Must(r.T, conn.AddMatchSignal(godbus.WithMatchInterface(ManagerName), godbus.WithMatchMember("Repaired")))
	got := map[string][]string{}
	return func() map[string][]string {
		// What the service sent before it answers is here before the answer.
		Must(r.T, conn.Object(ManagerName, ManagerPath).Call("org.freedesktop.DBus.Peer.Ping", 0).Err)
		for {
			select {
			case s := <-signals:
				if s.Name != ManagerName+".Repaired" {
					continue // NameAcquired arrives unasked
				}
				name := s.Body[0].(string)
				got[name] = append(got[name], s.Body[1].(string))
			default:
				return got
			}
		}
	}
}
