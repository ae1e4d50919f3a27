package main

import (
	"fmt"
	"strings"
)

// suite is what runs of one package's tests.
type suite struct {
	Folder string
	Tests  []string // by name; none for what Run matches
	Run    string   // "" for all
	// Modules are loaded before: what nothing asks for by itself.
	Modules []string
}

func (s suite) binary() string { return strings.ReplaceAll(s.Folder, "/", "-") + ".test" }

// plans are the guests that are booted, one after the other, and what runs in
// each: tests that meet what differs between kernels. Those are packets,
// modules that load when they are asked for, flags that are not there, and
// what outlives the service.
func plans() [][]suite {
	return [][]suite{
		// Each of these wants a kernel that has loaded nothing yet.
		{{Folder: "tests", Tests: names("TestNothingLoadedThenIptablesNFT")}},
		{{Folder: "tests", Tests: names("TestNothingLoadedThenIptablesLegacy")}},
		{
			{Folder: "tests", Tests: names("TestNothingLoadedThenNFTables")},
			{Folder: "tests", Tests: names(
				"TestLeaseHasItsChecksum",
				"TestForeignFlushIsMended",
				"TestRestartMakesNothingAnew",
				"TestGuestsGetNoPrivilegedPorts",
				"TestForgedSourcesAreDropped",
				"TestRulesHoldByNameWithoutTheService",
				"TestBridgeMadeAnewKeepsConnections",
				"TestRenamedBridgeKeepsItsRules",
				"TestFlowThatBeganTooEarly",
				"TestUpdateIsOneStep",
				"TestVerdictsAreLibvirts",
			)},
			{Folder: "service/nftables", Tests: names("TestReplacingChangesChainsAmongEachOther", "TestSwapsLoseAndLeakNothing")},
			// Alone: they wait for programs whose own patience is not the tests' to
			// stretch, 20 s of a call and 60 s of firewall-cmd.
			{Folder: "tests", Tests: names("TestSwitchMovesEverything")},
			{Folder: "tests", Tests: names("TestNATNetworkBehindFirewalld")},
			// As dockerd does; from then on every host's bridged frames meet its rules.
			{Folder: "tests", Tests: names("TestBridgedTrafficIsLeftAlone"), Modules: []string{"br_netfilter"}},
		},
	}
}

func names(tests ...string) []string { return tests }

// pattern is what go test's -run would be.
func (s suite) pattern() string {
	if len(s.Tests) > 0 {
		return "^(" + strings.Join(s.Tests, "|") + ")$"
	}
	return s.Run
}

// choose is the plan, or what the command line asks for.
func choose(o options) ([][]suite, error) {
	if o.folder != "" {
		return [][]suite{{{Folder: strings.Trim(o.folder, "./"), Run: o.pattern}}}, nil
	}
	if o.pattern != "" {
		return nil, fmt.Errorf("-run %s: say of which -package", o.pattern)
	}
	return plans(), nil
}
