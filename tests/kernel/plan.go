package main

import (
	"fmt"
	"strings"
)

// suite is what runs of one package: some of its tests, or the program that it is.
type suite struct {
	Folder  string
	Tests   []string // by name; none for what Run matches
	Run     string   // "" for all
	Program []string // the program's arguments; none for tests
	// Modules are loaded first: those that do not load on demand.
	Modules []string
}

// binary returns the name of the built tests or program.
func (s suite) binary() string {
	name := strings.ReplaceAll(s.Folder, "/", "-")
	if s.Program != nil {
		return name
	}
	return name + ".test"
}

// plans returns the guests that are booted, one after the other, and what runs in
// each: tests of what differs between kernels. Those are modules that load on
// demand and flags that are missing; with packets, also what passes and what
// outlives the service.
//
// firewalld is not among them: emulated, its reload takes longer than the minute
// that firewall-cmd waits.
func plans(packets bool) [][]suite {
	choices := []suite{
		{Folder: "tests/packets", Tests: names("TestNothingLoadedThenNFTables")},
		{Folder: "tests/packets", Tests: names("TestLeaseHasItsChecksum")},
		{Folder: "tests/backends", Tests: names("TestForeignFlushIsMended")},
	}
	if packets {
		choices = append(choices, packetTests()...)
	}
	return [][]suite{
		// Each of these needs a kernel that has loaded nothing yet.
		{{Folder: "tests/packets", Tests: names("TestNothingLoadedThenIptablesNFT")}},
		{{Folder: "tests/packets", Tests: names("TestNothingLoadedThenIptablesLegacy")}},
		choices,
	}
}

func packetTests() []suite {
	return []suite{
		{Folder: "tests/packets", Tests: names(
			"TestGuestsGetNoPrivilegedPorts",
			"TestForgedSourcesAreDropped",
			"TestRulesHoldByNameWithoutTheService",
			"TestBridgeMadeAnewKeepsConnections",
			"TestRenamedBridgeKeepsItsRules",
			"TestFlowThatBeganTooEarly",
			"TestVerdictsAreLibvirts",
		)},
		{Folder: "tests/lifecycle", Tests: names("TestRestartMakesNothingAnew")},
		{Folder: "tests/bus", Tests: names("TestUpdateIsOneStep")},
		{Folder: "service/nftables", Tests: names("TestReplacingChangesChainsAmongEachOther", "TestSwapsLoseAndLeakNothing")},
		// Alone: it waits for programs whose own patience is not the tests' to
		// stretch, such as the 20 s of a call.
		{Folder: "tests/backends", Tests: names("TestSwitchMovesEverything")},
		// As dockerd does; from then on every host's bridged frames meet its rules.
		{Folder: "tests/packets", Tests: names("TestBridgedTrafficIsLeftAlone"), Modules: []string{"br_netfilter"}},
	}
}

func names(tests ...string) []string { return tests }

// instructions is the guest that counts the instructions of a packet. What sends
// the packets is a module that loads only by name.
func instructions() [][]suite {
	return [][]suite{{{
		Folder:  "tests/bench",
		Program: []string{"-bin", jobDir, "-only", "^instructions$"},
		Modules: []string{"pktgen"},
	}}}
}

// pattern returns the argument of go test's -run.
func (s suite) pattern() string {
	if len(s.Tests) > 0 {
		return "^(" + strings.Join(s.Tests, "|") + ")$"
	}
	return s.Run
}

// choose returns the plan, or what the command line asks for.
func choose(o options) ([][]suite, error) {
	if o.instructions {
		return instructions(), nil
	}
	if o.folder != "" {
		return [][]suite{{{Folder: strings.Trim(o.folder, "./"), Run: o.pattern}}}, nil
	}
	if o.pattern != "" {
		return nil, fmt.Errorf("-run %s: say of which -package", o.pattern)
	}
	return plans(o.packets), nil
}
