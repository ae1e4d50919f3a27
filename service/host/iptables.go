package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"github.com/virtfirewalld/virtfirewalld/service/xtables"
)

const (
	mangle    = "mangle"
	ruleChain = "VIRTFW_DHCP"
	ruleJump  = `-p udp -m udp --dport 68 -m comment --comment "virtfirewalld: DHCP checksums" -j ` + ruleChain

	// maxComment is the limit of nft; the kernel accepts 255 bytes.
	maxComment = 120
)

// checksumRules fills in checksums with the CHECKSUM target of whichever
// iptables is on PATH. All bridges' rules are in a chain of their own behind one
// jump, so that other packets pass one rule however many bridges there are.
type checksumRules struct {
	unable string // the iptables that was found not to work

	clean bool   // nothing of ours exists
	rules string // what was asked for last
	good  listing
}

// listing is what is ours in the mangle table, as iptables prints it.
type listing struct {
	exists bool
	jumps  string // rules of POSTROUTING that jump to the chain, one a line
	rules  string // those of the chain
}

// fill makes the chain hold rules for exactly these bridges.
func (r *checksumRules) fill(ctx context.Context, bridges map[string]string) error {
	if len(bridges) == 0 && r.clean {
		return nil
	}
	command, err := exec.LookPath("iptables")
	if err != nil || command == r.unable {
		if len(bridges) == 0 {
			return nil
		}
		return errors.Join(errUnsupported, err)
	}
	programs := xtables.Beside(command)
	if len(bridges) == 0 {
		return r.remove(ctx, programs)
	}
	have, err := listOurs(ctx, programs)
	if err != nil {
		return r.classifyFailure(ctx, programs, err)
	}
	want := chainRules(bridges)
	if have == r.good && want == r.rules {
		return nil
	}
	script := ":" + ruleChain + " - [0:0]\n" + deletions(have.jumps) + "-I POSTROUTING " + ruleJump + "\n" + want
	if have.exists && have == r.good {
		// Writing a thousand bridges takes 250 ms, most of it under the lock
		// that every change of nftables needs.
		script = difference(r.rules, want)
	}
	if err := inMangle(ctx, programs, script); err != nil {
		return r.classifyFailure(ctx, programs, err)
	}
	r.clean = false
	// How iptables prints our rules differs between its versions, so what it prints
	// now is what it should print the next time.
	have, err = listOurs(ctx, programs)
	if err != nil {
		return err
	}
	if got, asked := lines(have.rules), lines(want); got != asked || lines(have.jumps) != 1 {
		return fmt.Errorf("the rules of mangle chain %s are %d in place of %d after they were written: "+
			"see whether another program writes it, with iptables -t mangle -S", ruleChain, got, asked)
	}
	r.good, r.rules = have, want
	return nil
}

// remove deletes the jump and the chain, also those of an earlier run.
func (r *checksumRules) remove(ctx context.Context, programs xtables.Programs) error {
	variant, _, err := xtables.VersionOf(ctx, programs.Command)
	if err != nil {
		return nil // an iptables that does not run has no rules of ours
	}
	var have listing
	if variant != xtables.VariantLegacy || hasMangle(ctx, programs) {
		if have, err = listOurs(ctx, programs); err != nil {
			return err
		}
	}
	if have.exists {
		script := deletions(have.jumps) + "-F " + ruleChain + "\n-X " + ruleChain + "\n"
		if err := inMangle(ctx, programs, script); err != nil {
			return err
		}
	}
	r.clean, r.good, r.rules = true, listing{}, ""
	return nil
}

// classifyFailure distinguishes, after a failure, an iptables or a kernel that never
// can from one that could not this time, by trying the smallest script that needs
// the same.
func (r *checksumRules) classifyFailure(ctx context.Context, programs xtables.Programs, failure error) error {
	const probe = "VIRTFW_PROBE"
	script := ":" + probe + " - [0:0]\n-A " + probe + " -p udp -m udp --dport 68 -j CHECKSUM --checksum-fill\n"
	err := inMangle(ctx, programs, script)
	if err == nil {
		return errors.Join(failure, inMangle(ctx, programs, "-F "+probe+"\n-X "+probe+"\n"))
	}
	// 4 is a resource problem, such as a lock that another program holds.
	var exit *exec.ExitError
	if ctx.Err() != nil || errors.As(err, &exit) && exit.ExitCode() == 4 {
		return failure
	}
	r.unable = programs.Command
	return errors.Join(errUnsupported, failure)
}

// listOurs lists what is ours.
func listOurs(ctx context.Context, programs xtables.Programs) (have listing, err error) {
	tables, err := programs.Show(ctx, mangle)
	if err != nil {
		return listing{}, err
	}
	var rules, jumps strings.Builder // there may be thousands
	for _, t := range tables {
		have.exists = have.exists || slices.Contains(t.Chains, ruleChain)
		for _, r := range t.Rules {
			switch {
			case r.Chain == ruleChain:
				rules.WriteString(r.Text + "\n")
			case r.Chain == "POSTROUTING" && strings.HasSuffix(r.Text, " -j "+ruleChain):
				jumps.WriteString(r.Text + "\n")
			}
		}
	}
	have.rules, have.jumps = rules.String(), jumps.String()
	return have, nil
}

// inMangle applies a script to the mangle table atomically.
func inMangle(ctx context.Context, programs xtables.Programs, script string) error {
	return programs.Do(ctx, "*"+mangle+"\n"+script+"COMMIT\n")
}

// hasMangle reports whether the mangle table exists. It spares the kernel a table,
// and every packet its hooks, that the legacy variant would create to list it.
func hasMangle(ctx context.Context, programs xtables.Programs) bool {
	tables, err := programs.List(ctx)
	return err != nil || slices.ContainsFunc(tables, func(t xtables.Table) bool { return t.Name == mangle })
}

// chainRules returns the rules for bridges, one a line and sorted.
func chainRules(bridges map[string]string) string {
	var rules []string
	for bridge, network := range bridges {
		rules = append(rules, fmt.Sprintf(`-A %s -o %s -p udp -m udp --dport 68 -m comment --comment "%s" -j CHECKSUM --checksum-fill`+"\n",
			ruleChain, bridge, comment(network)))
	}
	slices.Sort(rules)
	return strings.Join(rules, "")
}

// deletions returns commands that delete listed rules: iptables reads its own
// output.
func deletions(rules string) string {
	var b strings.Builder
	for line := range strings.Lines(rules) {
		b.WriteString("-D" + strings.TrimPrefix(line, "-A"))
	}
	return b.String()
}

// difference returns commands that turn a chain with some rules into one with
// others, in any order.
func difference(have, want string) string {
	left := make(map[string]bool)
	for line := range strings.Lines(have) {
		left[line] = true
	}
	var added strings.Builder
	for line := range strings.Lines(want) {
		if !left[line] {
			added.WriteString(line)
		}
		delete(left, line)
	}
	return deletions(strings.Join(slices.Sorted(maps.Keys(left)), "")) + added.String()
}

func lines(text string) int { return strings.Count(text, "\n") }

// comment returns a rule's comment, which names the network. Characters that could
// end a quoted word, or have a meaning, are replaced and not escaped.
func comment(network string) string {
	text := strings.Map(func(c rune) rune {
		if xtables.IsWord(c) || strings.ContainsRune("-.:@+ ", c) {
			return c
		}
		return '_'
	}, "virtfirewalld: network "+network)
	return strings.TrimSpace(text[:min(len(text), maxComment)])
}
