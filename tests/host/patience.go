package host

import (
	"os"
	"strconv"
	"time"
)

// Patient returns how long a test waits in place of d on this machine: d times
// VIRTFIREWALLD_TEST_FACTOR, for machines where everything takes longer, such as
// virtual ones without hardware acceleration. It affects waits only.
func Patient(d time.Duration) time.Duration {
	factor, err := strconv.ParseFloat(os.Getenv("VIRTFIREWALLD_TEST_FACTOR"), 64)
	if err != nil || factor < 1 {
		return d
	}
	return time.Duration(float64(d) * factor)
}

// patience bounds every wait for the kernel or a daemon. It is long because the
// kernel's lock on links is one for the whole machine: a neighbour that removes
// a network namespace with thousands of links was seen to hold it for 20 s.
func patience() time.Duration { return Patient(time.Minute) }
