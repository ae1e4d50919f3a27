package service_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/virtfirewalld/virtfirewalld/service"
	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/nftables"
	"github.com/virtfirewalld/virtfirewalld/service/servicetest"
)

func itoa(n int) string { return strconv.Itoa(n) }

// TestFlushedRulesComeBack with either backend, and clients learn which program
// flushed them.
func TestFlushedRulesComeBack(t *testing.T) {
	for _, backend := range []string{choice.NFTables, choice.IPTables} {
		t.Run(backend, func(t *testing.T) {
			virtual(t, func(r *rig) {
				r.Start()
				r.add("nat")
				r.use(backend)
				rules := r.State()
				r.Events()
				r.flush(backend, "nft", 812)
				pass(moment)
				if causes := r.repaired(); len(causes) != 1 || !strings.Contains(causes[0], "nft (pid 812)") {
					t.Errorf("it was told as %q", causes)
				}
				r.wantSame("repaired", rules)
				r.want("repaired", service.StateActive, "")
				r.touch(backend, "nft", 813) // and changed nothing
				pass(moment)
				if causes := r.repaired(); len(causes) > 0 {
					t.Errorf("what changed nothing was told as %q", causes)
				}
			})
		})
	}
}

// use switches to a backend.
func (r *rig) use(backend string) {
	r.t.Helper()
	r.Must(r.Service.SetBackend(context.Background(), backend, service.ChangeOptions{}))
	pass(moment)
}

// flush flushes the rules as another program.
func (r *rig) flush(backend, program string, pid int) {
	if backend == choice.IPTables {
		r.World.Chains.Flush()
	} else {
		r.Kernel.Damage("default")
	}
	r.touch(backend, program, pid)
}

// touch reports a change by another program.
func (r *rig) touch(backend, program string, pid int) {
	if backend == choice.IPTables {
		r.Calls.Touch(program, pid)
	} else {
		r.Table.Touch(program, pid)
	}
}

func (r *rig) wantSame(when string, before servicetest.State) {
	r.t.Helper()
	now := r.State()
	if strings.Join(now.Rules, "\n") != strings.Join(before.Rules, "\n") || len(now.Chains) != len(before.Chains) {
		r.t.Errorf("%s, the rules are others than before:\n%q\n%q", when, before, now)
	}
}

// TestFight: another program undoes each repair. It is named, repairs back off, and
// the fight is over when it stops.
func TestFight(t *testing.T) {
	for _, backend := range []string{choice.NFTables, choice.IPTables} {
		t.Run(backend, func(t *testing.T) {
			virtual(t, func(r *rig) {
				r.Start()
				r.add("nat")
				r.use(backend)
				r.Events()
				undo := func(d time.Duration) (repairs int) {
					for end := time.Now().Add(d); time.Now().Before(end); pass(20 * time.Millisecond) {
						r.flush(backend, "opponent", 7)
					}
					return len(r.repaired())
				}
				undo(12 * time.Second)
				r.want("fought over", service.StateFailed, finding.RulesMissing)
				if st := r.status("default"); !strings.Contains(st.StateReason, "opponent") {
					t.Errorf("the reason does not name the opponent: %s", st.StateReason)
				}
				r.wantFinding("fought over", finding.RulesFoughtOver, true)
				if n := undo(30 * time.Second); n > 6 {
					t.Errorf("%d repairs in 30 s of a fight", n)
				}
				if n, err := r.Service.Reapply(context.Background()); n != 1 || err != nil {
					t.Errorf("reapply in a fight mended %d, %v", n, err)
				}
				r.want("put back", service.StateDegraded, finding.RulesFoughtOver)
				pass(5 * time.Minute)
				r.want("after the fight", service.StateActive, "")
			})
		})
	}
}

// TestABusyFirewalldIsNotDisturbed: rules that a reload of firewalld removes are
// restored once the reload is done, not in the middle of it, where a change of
// nf_tables can make it fail. They do not wait long for a stuck firewalld.
func TestABusyFirewalldIsNotDisturbed(t *testing.T) {
	for name, answers := range map[string]bool{"reload": true, "stuck": false} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(r *rig) {
				r.Start()
				r.add("nat")
				r.use(choice.IPTables)
				rules := r.State()
				r.Firewalld.Busy()
				r.flush(choice.IPTables, "iptables-restor", 812)
				pass(500 * time.Millisecond)
				if lines := r.World.Chains.Lines(); len(lines) > 0 {
					t.Errorf("rules came back in the middle of a reload: %q", lines)
				}
				if answers {
					r.Firewalld.Silence(false)
					pass(100 * time.Millisecond)
				} else {
					pass(2 * time.Second)
				}
				r.wantSame("after the reload", rules)
			})
		})
	}
}

// TestABusyFirewalldDelaysNoOtherRepair: what no reload of firewalld's does is put
// right at once, whatever firewalld is doing, and so is all where firewalld has not
// answered for long.
func TestABusyFirewalldDelaysNoOtherRepair(t *testing.T) {
	for program, unresponsive := range map[string]bool{"iptables": false, "iptables-restor": true} {
		t.Run(program, func(t *testing.T) {
			virtual(t, func(r *rig) {
				r.Start()
				r.add("nat")
				r.use(choice.IPTables)
				rules := r.State()
				if r.Firewalld.Busy(); unresponsive {
					pass(2 * time.Second)
				}
				r.flush(choice.IPTables, program, 812)
				pass(200 * time.Millisecond)
				r.wantSame("after a flush", rules)
			})
		})
	}
}

// TestFirewalldsReloadsAreNoFight, however many follow each other.
func TestFirewalldsReloadsAreNoFight(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("nat")
		r.use(choice.IPTables)
		for range 12 {
			r.flush(choice.IPTables, "iptables-restor", 7)
			pass(moment)
			r.Firewalld.Reload()
			pass(1500 * time.Millisecond)
			r.want("reloaded", service.StateActive, "")
		}
	})
}

// TestTableOfAnotherProgram: State names the owner of the table, and the rules are
// written when it is gone.
func TestTableOfAnotherProgram(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("nat")
		r.Kernel.Flush()
		r.Kernel.Own(&nftables.OwnedError{Port: 4_000_000})
		r.Table.Touch("nft", 9)
		pass(moment)
		r.want("owned", service.StateFailed, finding.TableForeign)
		r.Kernel.Own(nil)
		pass(time.Minute)
		r.want("free again", service.StateActive, "")
	})
}

// TestRepairFails: a comparison that fails is retried, and State reports it.
func TestRepairFails(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("nat")
		r.Kernel.Damage("default")
		r.Kernel.Own(servicetest.ErrInjected)
		r.Table.Touch("nft", 9)
		pass(5 * time.Second)
		r.want("not repaired", service.StateFailed, finding.RulesMissing)
		r.Kernel.Own(nil)
		pass(time.Minute)
		r.want("repaired", service.StateActive, "")
	})
}

// TestLegacyCalls: iptables-legacy sends no notification of its changes.
func TestLegacyCalls(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("nat")
		r.use(choice.IPTables)
		r.Events()
		r.World.Chains.Flush()
		r.Calls.Call()
		pass(moment)
		if causes := r.repaired(); len(causes) != 1 || !strings.Contains(causes[0], "iptables-legacy") {
			t.Errorf("it was told as %q", causes)
		}
	})
}

func TestCounters(t *testing.T) {
	virtual(t, func(r *rig) {
		r.Start()
		r.add("nat")
		r.Kernel.Count("default", 7)
		read := func() uint64 {
			pass(moment)
			c, err := r.Service.Counters(context.Background(), "default")
			r.Must(err)
			return c["FromGuestPackets"]
		}
		if n := read(); n != 7 {
			t.Errorf("%d packets, want 7", n)
		}
		pass(2 * time.Second) // counters that clients have seen are kept
		r.Kernel.Flush()
		r.Table.Touch("nft", 9)
		if n := read(); n != 7 {
			t.Errorf("%d packets after a flush, want 7", n)
		}
		r.Must(r.Add(context.Background(), servicetest.NetXML("default", "virbr0", "route", natNet), service.ChangeOptions{Replace: true}))
		if n := read(); n != 0 {
			t.Errorf("%d packets of what replaced it, want 0", n)
		}
		_, err := r.Service.Counters(context.Background(), "other")
		wantKind(t, "no such network", err, service.NetworkNotFound)
	})
}
