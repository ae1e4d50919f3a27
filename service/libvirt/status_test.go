package libvirt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// status is a status document as libvirt 11.3 writes it.
func status(network string) string {
	return "<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE.\n-->\n\n<networkstatus>\n  <class_id bitmap='0-2'/>\n" +
		"  <floor sum='0'/>\n" + network + "\n  <firewall name='fwRemoval' backend='iptables'><group ignoreErrors='yes'>" +
		"<action layer='ipv4'><args><item>--table</item></args></action></group></firewall>\n</networkstatus>\n"
}

const definition = `<network>
    <name>default</name>
    <uuid>e49d1a34-0000-4a6e-9d4e-2f5c8b1c6a10</uuid>
    <forward mode='nat'><nat><port start='1024' end='65535'/></nat></forward>
    <bridge name='virbr0' stp='on' delay='0'/>
    <mac address='52:54:00:6e:5c:01'/>
    <ip address='192.168.122.1' netmask='255.255.255.0'><dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip>
  </network>`

func TestStatusDocument(t *testing.T) {
	n, err := parseStatus([]byte(status(definition)))
	if err != nil || n.Name != "default" || n.Bridge != "virbr0" || !n.Understood || len(n.Definition.Subnets()) != 1 {
		t.Errorf("got %+v, %v", n, err)
	}
	// What cannot be governed is still libvirt's.
	strange := strings.Replace(definition, "mode='nat'", "mode='teleport'", 1)
	if n, err := parseStatus([]byte(status(strange))); err != nil || n.Bridge != "virbr0" || n.Understood {
		t.Errorf("a mode that nobody knows: %+v, %v", n, err)
	}
	if n, err := parseStatus([]byte(status("<network><name>direct</name><forward mode='bridge'/></network>"))); err != nil || n.Bridge != "" {
		t.Errorf("a network without a bridge: %+v, %v", n, err)
	}
}

func TestHostileStatusDocuments(t *testing.T) {
	for what, doc := range map[string]string{
		"empty": "", "cut": status(definition)[:300], "no XML": "\x00\xff\xfe", "another root": definition,
		"no name":     status("<network><bridge name='virbr0'/></network>"),
		"deeper":      "<networkstatus><x>" + definition + "</x></networkstatus>",
		"unbalanced":  "<networkstatus></network><network><name>x</name></network>",
		"an entity":   "<!DOCTYPE x [<!ENTITY a 'b'>]><networkstatus><network><name>&a;</name></network></networkstatus>",
		"depth":       strings.Repeat("<a>", 200000),
		"encoding":    "<?xml version='1.0' encoding='utf-16'?>" + status(definition),
		"attribute":   "<networkstatus><network><name>x</name><bridge name='" + strings.Repeat("v", 100) + "/></network></networkstatus>",
		"only an end": "</networkstatus>",
	} {
		if n, err := parseStatus([]byte(doc)); err == nil {
			t.Errorf("%s: %+v", what, n)
		}
	}
}

func FuzzStatus(f *testing.F) {
	f.Add([]byte(status(definition)))
	f.Fuzz(func(t *testing.T, doc []byte) {
		if n, err := parseStatus(doc); err == nil && (n.Name == "" || n.Understood && n.Definition.Bridge != n.Bridge) {
			t.Errorf("%+v", n)
		}
	})
}

// bench is a driver with a directory of its own and no real interfaces.
type bench struct {
	*Driver
	t     testing.TB
	there map[string]bool
}

func newBench(t testing.TB) *bench {
	b := &bench{Driver: New(t.TempDir()), t: t, there: map[string]bool{}}
	b.exists = func(iface string) (bool, error) { return b.there[iface], nil }
	return b
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) delete(name string) {
	b.t.Helper()
	if err := os.Remove(filepath.Join(b.dir, name)); err != nil {
		b.t.Fatal(err)
	}
}

// TestNothingIsLeftWhileItIsNotCertain: a document that nobody can read may be
// of any network.
func TestNothingIsLeftWhileItIsNotCertain(t *testing.T) {
	b := newBench(t)
	if st := b.State(); !st.Idle() {
		t.Errorf("an empty directory: %+v", st)
	}
	for what, spoil := range map[string]func(path string) error{
		"a FIFO":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a link":      func(path string) error { return os.Symlink("/dev/zero", path) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"too long":    func(path string) error { return os.WriteFile(path, make([]byte, maxStatus+1), 0o600) },
		"no XML":      func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
	} {
		if err := spoil(filepath.Join(b.dir, "spoilt.xml")); err != nil {
			t.Fatal(err)
		}
		st := b.State()
		if left, again := st.Left("virbr0"); left || again != 0 || st.Idle() || st.Err == nil {
			t.Errorf("%s: %+v", what, st)
		}
		b.delete("spoilt.xml")
	}
	if left, _ := b.State().Left("virbr0"); !left {
		t.Error("without a daemon or a document something is not left behind")
	}
	var none *Driver
	if st := none.State(); !st.Idle() {
		t.Errorf("a host without libvirt: %+v", st)
	}
}

// TestHasWhileThereIsADocument: whether its daemon runs or not.
func TestHasWhileThereIsADocument(t *testing.T) {
	b := newBench(t)
	b.write("default.xml", status(definition))
	st := b.State()
	if n, has := st.Of("virbr0"); !has || n.Name != "default" || st.Running || st.Idle() {
		t.Errorf("%+v", st)
	}
	if left, _ := st.Left("virbr0"); left {
		t.Error("it is left behind")
	}
	if left, _ := st.Left("virbr1"); !left {
		t.Error("another bridge is not left behind")
	}
	b.write("default.xml", status(strings.Replace(definition, "virbr0", "virbr7", 1)))
	if _, has := b.State().Of("virbr7"); !has {
		t.Error("a changed document was not read again")
	}
	b.delete("default.xml")
	if st := b.State(); !st.Idle() {
		t.Errorf("after its end: %+v", st)
	}
}

// TestDnsmasqWithoutADocument: libvirt starts the one before it writes the other.
func TestDnsmasqWithoutADocument(t *testing.T) {
	b := newBench(t)
	alive := map[int]bool{17: true}
	b.serves = func(pid int) bool { return alive[pid] }
	for _, file := range []string{"driver.pid", "gone.pid", "odd.pid"} {
		b.write(file, map[string]string{"driver.pid": "17\n", "gone.pid": "16\n", "odd.pid": "x"}[file])
	}
	b.State()
	if b.starting() {
		t.Error("nothing is starting")
	}
	b.write("default.pid", "17\n")
	if b.State(); !b.starting() {
		t.Error("a network that is starting goes unseen")
	}
	b.write("default.xml", status(definition))
	if b.State(); b.starting() {
		t.Error("a network that has started is taken for one that is starting")
	}
}

// TestMayStart: libvirt writes the document of a network when all else is done.
func TestMayStart(t *testing.T) {
	b := newBench(t)
	b.write("default.xml", status(definition))
	has := b.State()
	for name, c := range map[string]struct {
		state  State
		bridge string
		want   bool
	}{
		"no daemon":                     {State{}, "virbr1", false},
		"a daemon":                      {State{Running: true}, "virbr1", true},
		"a network that it has started": {State{Running: true, byBridge: has.byBridge}, "virbr0", false},
		"another bridge":                {State{Running: true, byBridge: has.byBridge}, "virbr1", true},
		"nobody knows":                  {State{Err: os.ErrPermission}, "virbr1", true},
	} {
		if got := c.state.MayStart(c.bridge); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestStartingAndStopping: while the daemon runs and the bridge is there, rules
// without a document may be those of a start or a stop.
func TestStartingAndStopping(t *testing.T) {
	b := newBench(t)
	b.there["virbr0"] = true
	st := State{Running: true, driver: b.Driver, byBridge: map[string]Network{}}
	if left, again := st.Left("virbr0"); left || again <= 0 || again > patience {
		t.Errorf("just seen: %v, %v", left, again)
	}
	b.had["virbr0"] = Network{Name: "default"}
	if n, beside := st.Beside("virbr0"); !beside || n.Name != "default" {
		t.Error("a network that is stopping is given up before its rules are gone")
	}
	b.patience = time.Nanosecond
	st.starting = true
	if left, again := st.Left("virbr0"); left || again == 0 {
		t.Errorf("while a hook keeps a start: %v, %v", left, again)
	}
	st.starting = false
	_, _ = st.Left("virbr0")
	if left, again := st.Left("virbr0"); !left || again != 0 {
		t.Errorf("after a while: %v, %v", left, again)
	}
	b.patience = patience
	delete(b.there, "virbr0")
	if _, beside := st.Beside("virbr0"); beside {
		t.Error("a network whose bridge is gone is not given up")
	}
	b.there["virbr0"] = true
	if left, _ := st.Left("virbr0"); left {
		t.Error("a bridge that has come again is left behind at once")
	}
	st.Running = false
	if left, _ := st.Left("virbr0"); !left {
		t.Error("without a daemon the rules are not left behind")
	}
}
