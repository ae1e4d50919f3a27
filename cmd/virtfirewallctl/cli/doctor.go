package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/virtfirewalld/virtfirewalld/cmd/virtfirewallctl/client"
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor [NAME]",
		Short: "Report problems of this host, and what to do about them",
		Long: `Doctor shows the problems that the service finds on the host and its networks, or
in one network: the worst first, each with what to do. It needs an administrator and
changes nothing.

The exit code is 0 where nothing is worse than information, and 1 where there is
a warning or an error.`,
		Example: `  sudo virtfirewallctl doctor
  sudo virtfirewallctl doctor default --json`,
		Args:              between(0, 1),
		ValidArgsFunction: a.completeNetworks,
		RunE: a.run(client.Options{NoAutoStart: true, Prompt: a.prompt}, func(ctx context.Context, c *client.Client, args []string) (result, error) {
			if len(args) == 1 {
				if _, err := c.Network(ctx, args[0]); err != nil {
					return nil, err
				}
			}
			all, err := c.Diagnose(ctx)
			d := diagnosis{}
			for _, f := range all {
				if len(args) == 0 || f.Network == args[0] {
					d = append(d, f)
				}
			}
			return d, err
		}),
	}
}

type diagnosis []client.Finding

func (d diagnosis) well() bool {
	for _, f := range d {
		if f.Notable() {
			return false
		}
	}
	return true
}

func (d diagnosis) text(o *output) {
	for _, f := range d {
		findingText(o, f)
	}
	o.linef("%s", d.summary())
}

// summary counts findings by severity.
func (d diagnosis) summary() string {
	var parts []string
	for _, s := range []string{"error", "warning"} {
		n := 0
		for _, f := range d {
			if f.Severity == s {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, count(n, s))
		}
	}
	if d.well() {
		return "nothing is amiss"
	}
	return strings.Join(parts, ", ")
}

// findingText prints one finding. Nothing is wrapped: commands in it are there
// to be pasted.
func findingText(o *output, f client.Finding) {
	of := ""
	if f.Network != "" {
		of = " network " + f.Network + ":"
	}
	o.linef("%s", printable(f.Severity+":"+of+" "+f.Summary+" ["+f.ID+"]"))
	if f.Evidence != "" {
		for line := range strings.Lines(f.Evidence) {
			o.linef("  %s", printable(strings.TrimRight(line, "\n")))
		}
	}
	if f.Remedy != "" {
		o.linef("  to do: %s", printable(f.Remedy))
	}
}
