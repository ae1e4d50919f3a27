package dbus

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func (r *rig) busctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "busctl", append([]string{"--address=" + r.bus.Address}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("busctl %v: %s (%v)", args, out, err)
	}
	return string(out)
}

func TestBusctl(t *testing.T) {
	r := newRig(t)
	out := r.busctl(t, "call", BusName, ManagerPath, managerInterface, "AddNetworkFromXML", "sa{sv}", defaultXML, "1", "Persistent", "b", "true")
	if want := `o "` + networksPath + `/default"` + "\n"; out != want {
		t.Errorf("AddNetworkFromXML shows %q, want %q", out, want)
	}
	tree := r.busctl(t, "tree", "--list", BusName)
	for _, path := range []string{"/org", "/org/virtfirewall", ManagerPath, networksPath, networksPath + "/default"} {
		if !strings.Contains(tree, path+"\n") {
			t.Errorf("the tree lacks %s:\n%s", path, tree)
		}
	}
	for _, line := range []string{".Addresses property as 1 \"192.168.122.1/24\" emits-change", ".UUID property s \"9a05da11-e96b-47f3-8253-a3a482e445f5\" const",
		".Persistent property b true emits-change", ".PortForwards property aa{sv} 0 emits-change", ".Update method a{sv}a{sv} - -"} {
		shown := strings.Join(strings.Fields(r.busctl(t, "introspect", "--full", BusName, networksPath+"/default")), " ")
		if !strings.Contains(shown, line) {
			t.Errorf("introspect does not show %q:\n%s", line, shown)
		}
	}
}

// Other tools accept the interface file.
func TestInterfaceFileIsAccepted(t *testing.T) {
	r := newRig(t)
	out, err := exec.Command("gdbus", "introspect", "--address", r.bus.Address, "--dest", BusName, "--object-path", ManagerPath, "--xml").CombinedOutput()
	if err != nil || !strings.Contains(string(out), `<method name="AddNetwork">`) {
		t.Errorf("gdbus introspect: %s (%v)", out, err)
	}
}

// The examples of the documentation do what they say: list, follow, add.
func TestExampleClients(t *testing.T) {
	for name, want := range map[string][]string{
		"client.py": {"first: " + bridgeOf("first") + ", nat, 192.168.150.1/24: active", "lab: virbr5, nat, 192.168.7.1/24: active", "added lab", "added later", "removed first"},
		"client.sh": {"first: " + bridgeOf("first") + ", nat, ['192.168.150.1/24']: active", "lab: virbr5, nat, ['192.168.7.1/24']: active", "NetworkAdded ('lab', ", "NetworkAdded ('later', ", "NetworkRemoved ('first', "},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.add(t, "first")
			lines := r.runExample(t, name, "lab", "virbr5", "192.168.7.1/24")
			seen := expectLines(t, lines, want[:3])
			r.add(t, "later")
			must(t, r.call("RemoveNetwork", "first", noOptions()).Err)
			expectLines(t, lines, want[3:], seen...)
			if asked := r.api.asked(); !strings.HasPrefix(asked[1], "AddNetwork lab virbr5 ") {
				t.Errorf("the service was asked for %q", asked[1])
			}
		})
	}
}

// A user who may not add gets an error, and the examples end with a failure.
func TestExampleClientsSayWhatFailed(t *testing.T) {
	r := newRig(t)
	for name, interpreter := range map[string][]string{"client.py": {"/usr/bin/python3", "-"}, "client.sh": {"sh", "-s"}} {
		script, err := os.Open(filepath.Join("..", "docs", "examples", name))
		must(t, err)
		defer script.Close()
		// Read from a descriptor, since another user need not reach the file.
		cmd := r.asNobody(t, append(interpreter, "lab", "virbr5", "192.168.7.1/24")...)
		cmd.Stdin = script
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "use sudo") {
			t.Errorf("%s as another user: %s (%v)", name, out, err)
		}
	}
}

// runExample starts an example, ends it with the test, and returns its lines.
func (r *rig) runExample(t *testing.T, name string, args ...string) <-chan string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "docs", "examples", name))
	must(t, err)
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+r.bus.Address)
	pipe, err := cmd.StdoutPipe()
	must(t, err)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	must(t, cmd.Start())
	lines := make(chan string, 1024)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(io.Reader(pipe)); s.Scan(); {
			lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		for range lines {
		}
		_ = cmd.Wait()
		if complaints.Len() > 0 {
			t.Errorf("%s complained: %s", name, &complaints)
		}
	})
	return lines
}

// expectLines waits until every text is in some line; it returns all lines.
func expectLines(t *testing.T, lines <-chan string, texts []string, seen ...string) []string {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for !containAll(seen, texts) {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("the client ended after %q, want %q", seen, texts)
			}
			seen = append(seen, line)
		case <-timeout:
			t.Fatalf("the client said %q, want %q", seen, texts)
		}
	}
	return seen
}

func containAll(lines, texts []string) bool {
	all := strings.Join(lines, "\n")
	for _, text := range texts {
		if !strings.Contains(all, text) {
			return false
		}
	}
	return true
}
