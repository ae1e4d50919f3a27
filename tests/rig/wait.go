package rig

import (
	"time"

	"github.com/virtfirewalld/virtfirewalld/tests/host"
)

// Await repeats a check until it holds, and reports whether it did in time. A
// check that takes long, such as one that runs programs, is made less often: it
// would take the processors from what it waits for.
func Await(within time.Duration, holds func() bool) bool {
	for deadline := time.Now().Add(host.Patient(within)); ; {
		began := time.Now()
		if holds() {
			return true
		}
		if began.After(deadline) {
			return false
		}
		time.Sleep(min(max(2*time.Since(began), 5*time.Millisecond), 200*time.Millisecond))
	}
}

// Until waits for something that follows in its own time.
func (r *Rig) Until(what string, happened func() bool) {
	r.T.Helper()
	if !Await(CallTimeout, happened) {
		r.T.Fatalf("it did not happen within %s: %s", host.Patient(CallTimeout), what)
	}
}
