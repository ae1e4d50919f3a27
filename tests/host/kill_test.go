package host_test

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

func itoa(n int) string { return strconv.Itoa(n) }

// liveUntilKilled makes a host with all that one can have, prints how to find
// it, and waits.
func liveUntilKilled() int {
	h, err := host.Create(context.Background(), host.Config{Forwarding: true})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer h.Close()
	h.Bridge("virbr0", "192.168.122.1/24")
	guest := h.Guest("virbr0", "guest", "192.168.122.10/24")
	internet := h.Internet()
	h.Bus()
	h.Start("sleeper", "sleep", "600")
	guest.Start("stubborn", "sh", "-c", "trap '' TERM HUP INT; while :; do sleep 600; done")
	h.Must("sh", "-c", "mkdir -p /sys/fs/cgroup/a/b; setsid sleep 600 </dev/null >/dev/null 2>&1 & echo $! >/sys/fs/cgroup/a/b/cgroup.procs")
	to := netip.MustParseAddrPort("203.0.113.1:9000")
	if _, err := host.StartStream(guest, internet, host.StreamConfig{To: to, Rate: 100}); err != nil {
		fmt.Println(err)
		return 1
	}
	for _, n := range []interface{ Must(...string) string }{h, guest, internet} {
		fmt.Print(n.Must("sh", "-c", "readlink /proc/self/ns/net /proc/self/ns/mnt /proc/self/ns/pid /proc/self/ns/cgroup"))
	}
	group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", h.PID()))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for line := range strings.Lines(string(group)) {
		if name, ok := strings.CutPrefix(line, "0::"); ok {
			fmt.Print("cgroup ", name)
		}
	}
	fmt.Println("ready")
	time.Sleep(10 * time.Minute)
	return 0
}

func TestKilledProcessLeavesNothing(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childVariable+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	spaces, group := map[string]bool{}, ""
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "ready" {
		if name, ok := strings.CutPrefix(lines.Text(), "cgroup "); ok {
			group = filepath.Base(name)
			continue
		}
		spaces[lines.Text()] = true
	}
	if len(spaces) < 7 || group == "" {
		t.Fatalf("the child did not come up: %v %q", spaces, group)
	}
	if len(holders(t, spaces)) == 0 || findCgroup(t, group) == "" {
		t.Fatal("the host cannot be seen while it is there, so its end could not be")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	await(t, func() bool { return len(holders(t, spaces)) == 0 && findCgroup(t, group) == "" })
	t.Logf("all was gone after %s", time.Since(began))
}

// holders lists the processes that are in one of the namespaces, or hold one
// open. Processes that have ended hold nothing; how soon they are collected is up
// to the machine's init.
func holders(t *testing.T, spaces map[string]bool) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"/proc/[0-9]*/ns/*", "/proc/[0-9]*/fd/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if link, err := os.Readlink(path); err == nil && spaces[link] && !ended(filepath.Dir(filepath.Dir(path))) {
				found = append(found, path)
			}
		}
	}
	return found
}

// ended is true for a zombie, and for a pid 1 that waits for its zombies.
func ended(process string) bool {
	stat, err := os.ReadFile(process + "/stat")
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	const flagsField, exiting = 6, 0x4 // proc(5), the ninth; PF_EXITING, linux/sched.h
	flags, err := strconv.ParseUint(fields[flagsField], 10, 32)
	return err == nil && flags&exiting != 0
}

func findCgroup(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("findmnt", "-n", "-t", "cgroup2", "-o", "TARGET", "--first-only").Output()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(strings.TrimSpace(string(out)), name)
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// Should the guard be killed as well, the next host clears up.
func TestSweepTakesOnlyTheDead(t *testing.T) {
	h := host.New(t)
	alive := cgroupOf(t, h.PID())
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	root := filepath.Dir(findCgroup(t, alive))
	parts := strings.Split(alive, ".") // prefix.namespace-pid-start.random
	owner := strings.Split(parts[1], "-")
	stale := []string{
		fmt.Sprintf("%s-%d-%s", owner[0], dead.ProcessState.Pid(), owner[2]), // no such process
		fmt.Sprintf("%s-%s-%s", owner[0], owner[1], "1"),                     // a later process with its pid
	}
	kept := []string{
		fmt.Sprintf("1%s-%d-%s", owner[0], dead.ProcessState.Pid(), owner[2]), // another pid namespace
		"something-else",
	}
	for _, id := range append(append([]string(nil), stale...), kept...) {
		path := filepath.Join(root, parts[0]+"."+id+"."+parts[2])
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(path) })
	}
	host.New(t)
	if findCgroup(t, alive) == "" {
		t.Error("a living host's cgroup was swept")
	}
	for _, id := range stale {
		if findCgroup(t, parts[0]+"."+id+"."+parts[2]) != "" {
			t.Errorf("%s was not swept", id)
		}
	}
	for _, id := range kept {
		if findCgroup(t, parts[0]+"."+id+"."+parts[2]) == "" {
			t.Errorf("%s was swept, though its owner may live", id)
		}
	}
}

func cgroupOf(t *testing.T, pid int) string {
	t.Helper()
	return filepath.Base(cgroupPath(t, pid))
}

// cgroupPath returns a process's cgroup as the machine sees it.
func cgroupPath(t *testing.T, pid int) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSpace(path)
		}
	}
	t.Fatal("no cgroup2 entry")
	return ""
}
