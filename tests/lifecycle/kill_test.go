package lifecycle

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/network"
	"github.com/virtfirewalld/virtfirewalld/tests/rig"
)

// stored is one network as files have it. A document is its mode and its
// bridge, "nat virbr1".
type stored struct {
	Persistent, Runtime string
	Removed             bool
}

func (s stored) inForce() string {
	switch {
	case s.Runtime != "":
		return s.Runtime
	case s.Removed:
		return ""
	}
	return s.Persistent
}

// put and remove are design decision 13 once more.
func (s stored) put(doc string, persistent bool) stored {
	if persistent {
		return stored{Persistent: doc}
	}
	return stored{Persistent: s.Persistent, Runtime: doc}
}

func (s stored) remove(persistent bool) stored {
	if persistent || s.Persistent == "" {
		return stored{}
	}
	return stored{Persistent: s.Persistent, Removed: true}
}

func (s stored) reloaded() stored {
	if s.Persistent != "" {
		return stored{Persistent: s.Persistent}
	}
	return s
}

// disk holds all networks that a file defines.
type disk map[string]stored

func (d disk) with(name string, s stored) disk {
	next := maps.Clone(d)
	delete(next, name)
	if s != (stored{}) {
		next[name] = s
	}
	return next
}

// victim is a service that is killed, and what it should have on its disk.
type victim struct {
	*rig.Rig
	random *rand.Rand
	now    disk // what is sure
	next   disk // what the call under way leads to
	did    []string
}

// victims are the networks' names; number i may have bridges virbr(2i) and
// virbr(2i+1).
var victims = []string{"n0", "n1", "n2", "n3"}

func victimDoc(i int, doc string) string {
	mode, bridge, _ := strings.Cut(doc, " ")
	return rig.NetXML(victims[i], bridge, mode, fmt.Sprintf("10.%d.0.1/24", i+1))
}

// step makes one call that should succeed, and records its outcome first.
func (v *victim) step() *godbus.Call {
	i := v.random.IntN(len(victims))
	name, was := victims[i], v.now[victims[i]]
	persistent := v.random.IntN(2) == 0
	doc := fmt.Sprintf("%s virbr%d", []string{"nat", "route", "isolated", "open"}[v.random.IntN(4)], 2*i+v.random.IntN(2))
	note := func(next stored, what string) {
		v.next = v.now.with(name, next)
		v.did = append(v.did, fmt.Sprintf("%s %s, persistent %v, %s", what, name, persistent, doc))
	}
	switch choice := v.random.IntN(10); {
	case choice == 0:
		v.next = disk{}
		for name, s := range v.now {
			v.next[name] = s.reloaded()
		}
		v.did = append(v.did, "reload")
		return v.Manager("Reload")
	case choice < 4 && was.inForce() != "":
		note(was.remove(persistent), "remove")
		return v.Manager("RemoveNetwork", name, rig.Opts("Persistent", persistent))
	case choice < 7 && was.inForce() != "":
		note(was.put(doc, persistent), "update")
		mode, bridge, _ := strings.Cut(doc, " ")
		return v.Network(name, "Update", rig.Opts("ForwardMode", mode, "Bridge", bridge), rig.Opts("Persistent", persistent))
	}
	note(was.put(doc, persistent), "put")
	return v.AddXML(victimDoc(i, doc), "Persistent", persistent, "Replace", true)
}

// work makes calls until the service is gone.
func (v *victim) work() error {
	for {
		err := v.step().Err
		if err != nil {
			return err
		}
		v.now, v.next = v.next, nil
	}
}

// gone reports whether an error only means that the service no longer answers.
func gone(err error) bool {
	var e godbus.Error
	return errors.As(err, &e) && slices.Contains([]string{"org.freedesktop.DBus.Error.NoReply",
		"org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner"}, e.Name)
}

// onDisk reads the files as anybody could.
func (v *victim) onDisk() disk {
	v.T.Helper()
	d := disk{}
	for _, file := range v.listed(rig.NetworksDir) {
		name, doc := v.parse(path.Join(rig.NetworksDir, file), file)
		d[name] = stored{Persistent: doc}
	}
	for _, file := range v.listed(rig.RuntimeDir + "/networks") {
		name, doc := v.parse(path.Join(rig.RuntimeDir, "networks", file), file)
		s := d[name]
		if change := strings.HasSuffix(file, ".change.xml"); change != (s.Persistent != "") {
			v.T.Errorf("%s, and network %s is persistent: %v", file, name, !change)
		}
		s.Runtime = doc
		d[name] = s
	}
	for _, name := range v.listed(rig.RuntimeDir + "/removed") {
		s := d[name]
		s.Removed = true
		d[name] = s
	}
	return d
}

func (v *victim) listed(dir string) []string {
	return strings.Fields(v.Must("sh", "-c", "mkdir -p "+dir+"; ls -A "+dir))
}

func (v *victim) parse(file, base string) (name, doc string) {
	v.T.Helper()
	n, err := network.FromXML([]byte(v.File(file)))
	if err != nil || !strings.HasPrefix(base, n.Name+".") {
		v.T.Errorf("file %s holds network %q, %v", file, n.Name, err)
	}
	return n.Name, fmt.Sprintf("%s %s", n.Mode, n.Bridge)
}

// check compares files, bus, kernel and zones after a start, and goes on from
// what it finds.
func (v *victim) check() {
	v.T.Helper()
	found := v.onDisk()
	if !cmp.Equal(found, v.now) && (v.next == nil || !cmp.Equal(found, v.next)) {
		v.T.Fatalf("the files are those of neither state:\n%v\nbefore %v\nafter %v\ncalls %q", found, v.now, v.next, v.did)
	}
	v.now, v.next = found, nil
	var names []string
	for name, s := range found {
		if s.inForce() != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if got := v.Names(); !slices.Equal(got, append([]string{}, names...)) {
		v.T.Fatalf("networks %q, files say %q; calls %q", got, names, v.did)
	}
	for i, name := range victims {
		v.checkOne(i, name, found[name])
	}
	if strings.Contains(v.Must("find", rig.NetworksDir, rig.RuntimeDir, "-type", "f"), "/.") {
		v.T.Errorf("temporary files are left: %s", v.Must("find", rig.NetworksDir, rig.RuntimeDir, "-type", "f"))
	}
	if n := v.Reapply(); n != 0 {
		v.T.Errorf("a start left %d networks to repair; calls %q", n, v.did)
	}
}

func (v *victim) checkOne(i int, name string, s stored) {
	v.T.Helper()
	mode, bridge, _ := strings.Cut(s.inForce(), " ")
	if mode != "" {
		for property, want := range map[string]any{"ForwardMode": mode, "Bridge": bridge, "Persistent": s.Persistent != ""} {
			if got := v.Property(name, property); got != want {
				v.T.Errorf("%s of %s is %v, files say %v; calls %q", property, name, got, want, v.did)
			}
		}
	}
	table := v.Table()
	for what, want := range map[string]bool{
		"guests_name": mode != "" && mode != "open", "translated4_name": mode == "nat",
		"refused_from_name": mode != "" && mode != "open", "isolated4_name": mode == "isolated",
	} {
		if rig.InSet(table, what, name) != want {
			v.T.Errorf("%q in the kernel: %v, files say %s; calls %q\n%s", what, !want, mode, v.did, table)
		}
	}
	zones := map[string]string{"nat": "libvirt", "isolated": "libvirt", "route": "libvirt-routed"}
	for parity := range 2 {
		own := fmt.Sprintf("virbr%d", 2*i+parity)
		want := ""
		if own == bridge {
			want = zones[mode]
		}
		v.awaitZone(own, want)
	}
}

// awaitZone waits: zones follow a moment after a start.
func (v *victim) awaitZone(bridge, want string) {
	v.T.Helper()
	if !rig.Await(10*time.Second, func() bool { return v.Firewalld.ZoneOf(bridge) == want }) {
		v.T.Fatalf("%s is in zone %q, want %q; calls %q", bridge, v.Firewalld.ZoneOf(bridge), want, v.did)
	}
}

// TestKilledAtAnyPoint: the next start finds the old state or the new one of
// the call that was under way, and kernel, zones and files agree.
func TestKilledAtAnyPoint(t *testing.T) {
	t.Parallel()
	const kills = 40
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	v := &victim{Rig: rig.New(t), random: rand.New(rand.NewPCG(seed, 1)), now: disk{}}
	v.Firewalld.SetZones(rig.AllZones...)
	v.Firewalld.Start("nftables")
	for i := range 2 * len(victims) {
		v.Bridge(fmt.Sprintf("virbr%d", i))
	}
	underWay := 0
	for range kills {
		v.StartDaemon()
		v.check()
		v.did = nil
		ended := make(chan error, 1)
		life := time.Duration(v.random.Float64() * float64(100*time.Millisecond))
		go func() { ended <- v.work() }()
		time.Sleep(life)
		v.KillDaemon()
		if err := <-ended; !gone(err) {
			t.Fatalf("%v; calls %q", err, v.did)
		}
		underWay += len(v.did)
	}
	v.StartDaemon()
	v.check()
	t.Logf("%d calls, %d kills", underWay, kills)
}
