package service_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtfirewalld/virtfirewalld/service/servicetest"
)

var rewrite = flag.Bool("update", false, "write testdata/steps.txt again")

// newBase returns an in-memory world for operations.
func newBase(t testing.TB) *servicetest.World {
	t.Helper()
	m := servicetest.NewMemory(t)
	for i := range 5 {
		m.Links.Address(m.Links.Bridge(fmt.Sprintf("virbr%d", i+1)), fmt.Sprintf("10.%d.0.1/24", i+1))
	}
	m.Firewalld.Move("virbr5", "work")
	return servicetest.NewBase(servicetest.NewWorld(t, m))
}

// TestFailedCallsChangeNothing makes each step of each call fail in turn, once
// before it is done and once after. The steps are those of testdata/steps.txt.
func TestFailedCallsChangeNothing(t *testing.T) {
	ops := servicetest.Operations()
	steps := make([]string, len(ops))
	t.Run("all", func(t *testing.T) {
		for i, op := range ops {
			for _, after := range []bool{false, true} {
				name := op.Name
				if after {
					name += ", answers lost"
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					made := servicetest.FailEachStep(t, op, after, newBase)
					if !after {
						steps[i] = op.Name + ": " + strings.Join(made, ", ") + "\n"
					}
				})
			}
		}
	})
	golden := filepath.Join("testdata", "steps.txt")
	if *rewrite {
		if err := os.WriteFile(golden, []byte(strings.Join(steps, "")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if diff := cmp.Diff(string(want), strings.Join(steps, "")); diff != "" || err != nil {
		t.Errorf("calls make other steps (-want +got; go test -update writes them): %v\n%s", err, diff)
	}
}

// TestKilledAtEachStep kills the service at each step of each call in turn.
func TestKilledAtEachStep(t *testing.T) {
	for _, op := range servicetest.Operations() {
		t.Run(op.Name, func(t *testing.T) {
			t.Parallel()
			servicetest.KillAtEachStep(t, op, newBase)
		})
	}
}
