package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/virtfirewalld/virtfirewalld/cmd/virtfirewallctl/client"
)

func (a *app) addCommand() *cobra.Command {
	var persistent, replace bool
	cmd := &cobra.Command{
		Use:   "add FILE|-",
		Short: "Hand a network to the service",
		Long: `Add reads a libvirt <network> document from FILE, or from standard input for -,
and sets up the host's firewall for it.`,
		Example: "  virsh net-dumpxml default | virtfirewallctl add -",
		Args:    between(1, 1),
		RunE: a.do(func(ctx context.Context, c *client.Client, args []string) (result, error) {
			xml, err := a.document(args[0])
			if err != nil {
				return nil, err
			}
			n, err := c.Add(ctx, xml, persistent, replace)
			return added{n}, err
		}),
	}
	cmd.Flags().BoolVar(&persistent, "persistent", false, "keep the network over a reboot")
	cmd.Flags().BoolVar(&replace, "replace", false, "replace a network of the same name")
	return cmd
}

func (a *app) removeCommand() *cobra.Command {
	var persistent bool
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a network from the service",
		Long: `Remove makes the service stop managing a network. Its rules are removed, and only
the host's other rules apply to its traffic. Without --persistent, a persistent
network comes back with the next reload or reboot.`,
		Args:              between(1, 1),
		ValidArgsFunction: a.completeNetworks,
		RunE: a.do(func(ctx context.Context, c *client.Client, args []string) (result, error) {
			return removed{args[0]}, c.Remove(ctx, args[0], persistent)
		}),
	}
	cmd.Flags().BoolVar(&persistent, "persistent", false, "also remove it from the configuration")
	return cmd
}

func (a *app) listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the networks",
		Args:  between(0, 0),
		RunE: a.read(func(ctx context.Context, c *client.Client, _ []string) (result, error) {
			n, err := c.Networks(ctx)
			return networkList(n), err
		}),
	}
}

func (a *app) showCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Show a network",
		Args:              between(1, 1),
		ValidArgsFunction: a.completeNetworks,
		RunE: a.read(func(ctx context.Context, c *client.Client, args []string) (result, error) {
			n, err := c.Network(ctx, args[0])
			return shown{n}, err
		}),
	}
}

func (a *app) rulesCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rules [NAME]",
		Short:             "Show the rules that the kernel holds for a network, or for all",
		Args:              between(0, 1),
		ValidArgsFunction: a.completeNetworks,
		RunE: a.read(func(ctx context.Context, c *client.Client, args []string) (result, error) {
			r, err := each(ctx, c, args, c.Ruleset)
			return rulesets(r), err
		}),
	}
}

func (a *app) countersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "counters [NAME]",
		Short: "Show the forwarded packets of a network, or of all",
		Long: `Counters shows what was forwarded since each network was added: from its guests,
to its guests, and what was rejected. Traffic within a bridge is not counted.`,
		Args:              between(0, 1),
		ValidArgsFunction: a.completeNetworks,
		RunE: a.read(func(ctx context.Context, c *client.Client, args []string) (result, error) {
			t, err := each(ctx, c, args, c.Counters)
			return counters(t), err
		}),
	}
}

// each calls get for the network that args name, or for all networks.
func each[T any](ctx context.Context, c *client.Client, args []string,
	get func(context.Context, string) (T, error)) ([]T, error) {
	names := args
	all := len(args) == 0
	if all {
		networks, err := c.Networks(ctx)
		if err != nil {
			return nil, err
		}
		for _, n := range networks {
			names = append(names, n.Name)
		}
	}
	out := make([]T, 0, len(names))
	for _, name := range names {
		v, err := get(ctx, name)
		if all && errors.Is(err, client.ErrNotFound) {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (a *app) previewCommand() *cobra.Command {
	var backend string
	cmd := &cobra.Command{
		Use:   "preview FILE|-",
		Short: "Show the rules that add would make, changing nothing",
		Args:  between(1, 1),
		RunE: a.read(func(ctx context.Context, c *client.Client, args []string) (result, error) {
			if backend != "" && backend != "nftables" && backend != "iptables" {
				return nil, usageError("--backend is nftables or iptables, not %q", backend)
			}
			xml, err := a.document(args[0])
			if err != nil {
				return nil, err
			}
			rules, err := c.Preview(ctx, xml, backend)
			return preview{Ruleset: rules}, err
		}),
	}
	cmd.Flags().StringVar(&backend, "backend", "", "nftables or iptables (default: the one in use)")
	err := cmd.RegisterFlagCompletionFunc("backend",
		cobra.FixedCompletions([]string{"nftables", "iptables"}, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // the flag is defined one line above
	}
	return cmd
}

// document reads the file of that name, or standard input for "-".
func (a *app) document(name string) (string, error) {
	from := a.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("reading the network: %w", err)
		}
		defer f.Close()
		from = f
	}
	// One byte more than the service accepts, to detect a document that is too long.
	text, err := io.ReadAll(io.LimitReader(from, client.MaxXMLBytes+1))
	if err != nil {
		return "", fmt.Errorf("reading the network: %w", err)
	}
	return string(text), nil
}
