package rig

import (
	"fmt"
	"strings"
	"time"
)

// Where the service keeps its files.
const (
	NetworksDir = "/etc/virtfirewalld/networks"
	ConfigFile  = "/etc/virtfirewalld/virtfirewalld.conf"
	RuntimeDir  = "/run/virtfirewalld"
)

// Write writes a file of the host; directories on the way are made.
func (r *Rig) Write(file, text string) {
	r.T.Helper()
	Must(r.T, r.WriteFile(file, []byte(text), 0o644))
}

// File returns what a file of the host holds; "" for none.
func (r *Rig) File(name string) string {
	data, err := r.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(data)
}

// Configure writes the service's settings.
func (r *Rig) Configure(text string) {
	r.T.Helper()
	r.Write(ConfigFile, text+"\n")
}

// AwaitSaved waits until what was seen of the counters is on disk.
func (r *Rig) AwaitSaved() {
	r.T.Helper()
	seen := fmt.Sprintf("\"FromGuestPackets\":%d,", r.Counters("default")["FromGuestPackets"])
	if !Await(20*time.Second, func() bool { return strings.Contains(r.File(RuntimeDir+"/counters.json"), seen) }) {
		r.T.Fatalf("counters are not saved: %s is not in %q", seen, r.File(RuntimeDir+"/counters.json"))
	}
}
