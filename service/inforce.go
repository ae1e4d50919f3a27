package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/finding"
	"github.com/virtfirewalld/virtfirewalld/service/nftables"
	"github.com/virtfirewalld/virtfirewalld/service/ruleset"
)

// sync brings the kernel's rules to those of all networks, and has their
// State say so where that fails. The caller holds the change lock.
func (rs *rules) sync(ctx context.Context) (damaged []string, err error) {
	damaged, err = rs.active.Sync(ctx, rs.members())
	if ctx.Err() == nil {
		rs.noteForeign(err)
	}
	return damaged, err
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
