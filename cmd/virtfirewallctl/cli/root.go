// Package cli is the command tree of virtfirewallctl: flags and arguments in,
// text or JSON out. Package client makes the D-Bus calls.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/virtfirewalld/virtfirewalld/cmd/virtfirewallctl/client"
)

// The exit codes of the program.
const (
	ExitOK            = 0
	ExitFailed        = 1
	ExitUsage         = 2
	ExitNotFound      = 3
	ExitNotAuthorised = 4
	ExitUnreachable   = 5
)

const longHelp = `virtfirewallctl hands virtual networks to virtfirewalld, the service that manages
the host's firewall for them, and shows their state.

Networks are libvirt <network> documents, as virsh net-dumpxml prints them.
Every command takes --json; its keys do not change. Tables fit the terminal, or
80 columns. The bus is $DBUS_SYSTEM_BUS_ADDRESS where that is set, else the
system bus. A command that only reads does not start a service that was stopped.
On a terminal, a command that lasts longer than two seconds says what it waits for.

Exit codes:

    0  done; doctor: nothing above info was found
    1  failed; doctor: warnings or errors were found
    2  the command line is wrong
    3  no such network, zone or object
    4  not authorised
    5  the bus or the service cannot be reached, or does not run`

const examples = `  virsh net-dumpxml default | virtfirewallctl add - --persistent
  virtfirewallctl status
  virtfirewallctl doctor
  virtfirewallctl rules default
  virtfirewallctl monitor --json`

// app holds what all commands share.
type app struct {
	version string
	json    bool
	timeout time.Duration
	ran     bool // the command line was parsed, and a command began
	stdin   io.Reader
	prompt  func(context.Context) (stop func()) // nil without a terminal
	slow    func(why string)                    // nil without a terminal
	out     *output
}

// Main runs one command line and returns the program's exit code.
func Main(version string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{version: version, stdin: stdin, out: newOutput(stdout)}
	if onTerminal(stdin) || onTerminal(stderr) {
		a.prompt = startAgent
	}
	if onTerminal(stderr) {
		a.slow = func(why string) { fmt.Fprintf(stderr, "virtfirewallctl: waiting for %s…\n", printable(why)) }
	}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	code := exitCode(err, a.ran)
	if errors.Is(err, errNotWell) {
		return code
	}
	text := sentence(err.Error())
	if code == ExitUsage {
		text += "; see virtfirewallctl --help"
	}
	fmt.Fprintf(stderr, "virtfirewallctl: %s\n", text)
	return code
}

// exitCode returns the exit code for an error. It tells a usage error from a
// failure by whether a command began: cobra's own errors have no type.
func exitCode(err error, ran bool) int {
	switch {
	case !ran || errors.Is(err, errUsage):
		return ExitUsage
	case errors.Is(err, client.ErrNotFound):
		return ExitNotFound
	case errors.Is(err, client.ErrNotAuthorised):
		return ExitNotAuthorised
	case errors.Is(err, client.ErrUnreachable):
		return ExitUnreachable
	}
	return ExitFailed
}

// Root returns the whole command tree, for the generation of documents.
func Root(version string) *cobra.Command {
	a := &app{version: version, stdin: os.Stdin, out: newOutput(os.Stdout)}
	return a.root()
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "virtfirewallctl",
		Short:         "Control the firewall of virtual networks",
		Long:          longHelp,
		Example:       examples,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          needsVerb,
		PersistentPreRun: func(*cobra.Command, []string) {
			a.ran = true
		},
	}
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.PersistentFlags().DurationVar(&a.timeout, "timeout", 0,
		"longest time to wait for an answer, such as 10s (default 25s to read, 3m to change)")
	root.AddCommand(
		a.addCommand(), a.removeCommand(), a.flushCommand(), a.listCommand(), a.showCommand(),
		a.statusCommand(), a.doctorCommand(),
		a.rulesCommand(), a.previewCommand(), a.countersCommand(),
		a.bindCommand(), a.unbindCommand(), a.zonesCommand(),
		a.monitorCommand(), a.reloadCommand(), a.reapplyCommand(),
		a.backendCommand(), a.versionCommand(),
	)
	return root
}

var errUsage = errors.New("usage")

// usageError returns a usage error that cobra cannot detect.
func usageError(format string, args ...any) error {
	return usageMistake{fmt.Sprintf(format, args...)}
}

type usageMistake struct{ text string }

func (u usageMistake) Error() string { return u.text }
func (u usageMistake) Unwrap() error { return errUsage }

func needsVerb(cmd *cobra.Command, _ []string) error {
	return usageError("%s needs a command", cmd.CommandPath())
}

// between checks the number of arguments. Its error contains the usage.
func between(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return fmt.Errorf("wrong number of arguments: the usage is %q", cmd.UseLine())
		}
		return nil
	}
}

// action is the work of a command with a client. It prints nothing.
type action func(ctx context.Context, c *client.Client, args []string) (result, error)

// result is what a command prints. As JSON it is encoded by encoding/json.
type result interface {
	// text writes the result for people.
	text(o *output)
}

// do returns a command's RunE for an action that changes something: connect,
// act, print. The bus may start the service for it.
func (a *app) do(act action) func(*cobra.Command, []string) error {
	return a.run(client.Options{Prompt: a.prompt}, act)
}

// read is do for an action that changes nothing: it does not start a service that
// somebody stopped.
func (a *app) read(act action) func(*cobra.Command, []string) error {
	return a.run(client.Options{NoAutoStart: true}, act)
}

func (a *app) run(o client.Options, act action) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		o.Timeout = a.timeout // set when the command line has been parsed
		if o.Prompt == nil || os.Geteuid() == 0 {
			o.Slow = a.slow // else polkit's question may be on the terminal
		}
		c, err := client.Dial(cmd.Context(), o)
		if err != nil {
			return err
		}
		defer c.Close()
		r, err := act(cmd.Context(), c, args)
		if err != nil {
			return err
		}
		return a.print(r)
	}
}

func (a *app) print(r result) error {
	if a.json {
		if err := a.out.json(r); err != nil {
			return err
		}
	} else {
		r.text(a.out)
		if err := a.out.flush(); err != nil {
			return err
		}
	}
	if v, ok := r.(verdict); ok && !v.well() {
		return errNotWell
	}
	return nil
}

// verdict is a result that decides the exit code too.
type verdict interface{ well() bool }

// errNotWell makes the exit code that of a failure; the printed result has the
// reason.
var errNotWell = errors.New("not well")

const completionTimeout = 500 * time.Millisecond

// completeNetworks offers the names of networks. A shell must not hang or print
// errors because somebody pressed tab, nor may that start the service.
func (a *app) completeNetworks(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	networks := a.networksQuietly(cmd.Context())
	names := make([]string, len(networks))
	for i, n := range networks {
		names[i] = n.Name
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeBridges offers the bridges of networks.
func (a *app) completeBridges(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	networks := a.networksQuietly(cmd.Context())
	bridges := make([]string, len(networks))
	for i, n := range networks {
		bridges[i] = n.Bridge
	}
	return bridges, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) networksQuietly(ctx context.Context) []client.Network {
	if ctx == nil { // cobra sets none when it completes
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	c, err := client.Dial(ctx, client.Options{Timeout: completionTimeout, NoAutoStart: true})
	if err != nil {
		return nil
	}
	defer c.Close()
	networks, err := c.Networks(ctx)
	if err != nil {
		return nil
	}
	return networks
}
