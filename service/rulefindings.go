package service

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/backend/choice"
	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/nftables"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// noteFindings makes findings of what is known.
func (rs *rules) noteFindings() {
	for _, m := range rs.networks.All() {
		rs.networks.note(m.net.Name, fromFight, rs.repairs.findings(m)...)
	}
}

func (r *repairs) findings(m *managed) (fs []finding.Finding) {
	name := m.net.Name
	if !m.hasRules {
		return nil
	}
	one := r.fights[name]
	if errors.As(r.failed, new(*nftables.OwnedError)) {
		return nil // that is said of the table
	}
	if r.missing[name] {
		fs = append(fs, missingFinding(m.backend, one, r.failed))
	} else if r.failed != nil && r.tries >= repairComplain {
		fs = append(fs, finding.Finding{
			ID:      finding.RulesUnreadable,
			Summary: "the kernel's rules can't be compared with what they should be", Evidence: r.failed.Error(),
			Remedy: "see the journal of virtfirewalld for the reason, mend it and run virtfirewallctl reapply",
		})
	}
	if one.on() {
		fs = append(fs, foughtFinding(m.backend, one))
	}
	return fs
}

// rulesIn names what holds a backend's rules, to people.
func rulesIn(backend string) string {
	if backend == choice.IPTables {
		return "the chains LIBVIRT_* of iptables"
	}
	return "table inet libvirt_network"
}

func missingFinding(backend string, f fight, failed error) finding.Finding {
	out := finding.Finding{
		ID:      finding.RulesMissing,
		Summary: fmt.Sprintf("the network's rules are not all in force: %s changed or removed them in %s", f.by, rulesIn(backend)),
		Remedy:  "stop that program; virtfirewallctl reapply puts them back at once",
	}
	if failed != nil {
		out.Evidence = failed.Error()
	}
	return out
}

func foughtFinding(backend string, f fight) finding.Finding {
	out := finding.Finding{
		ID:       finding.RulesFoughtOver,
		Summary:  fmt.Sprintf("%s undoes the network's rules in %s each time they are put back", f.by, rulesIn(backend)),
		Evidence: fmt.Sprintf("repairs are %v apart now", f.pause),
		Remedy:   "find out what runs it and have it leave them alone",
	}
	if f.by.PID != 0 {
		out.Evidence = fmt.Sprintf("last by %s, pid %d; %s", f.by, f.by.PID, out.Evidence)
	}
	return out
}

// noteForeign notes of every network that has rules whether the table that they
// are in can be changed at all. Other failures are counted where repairs are.
func (rs *rules) noteForeign(err error) {
	var owned *nftables.OwnedError
	var fs []finding.Finding
	if errors.As(err, &owned) {
		fs = []finding.Finding{{
			ID: finding.TableForeign, Evidence: err.Error(),
			Summary: fmt.Sprintf("table inet %s belongs to %s, and only that can change it", ruleset.TableName, owner(owned.Port)),
			Remedy:  "stop that program, or have it use another table; the network is in force again by itself within seconds",
		}}
	} else if err != nil {
		return
	}
	for _, m := range rs.networks.All() {
		if m.hasRules {
			rs.networks.note(m.net.Name, fromTable, fs...)
		} else {
			rs.networks.note(m.net.Name, fromTable)
		}
	}
}

// owner names the program behind a netlink port. Programs mostly have their
// process ID there, and nft shows them by it too.
func owner(port uint32) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", port))
	if err != nil {
		return fmt.Sprintf("another program (netlink port %d)", port)
	}
	return fmt.Sprintf("%s (pid %d)", strings.TrimSpace(strings.ToValidUTF8(string(name), "?")), port)
}
