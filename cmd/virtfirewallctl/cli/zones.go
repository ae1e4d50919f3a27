package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/virtfirewalld/virtfirewalld/cmd/virtfirewallctl/client"
)

func (a *app) bindCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "bind INTERFACE [ZONE]",
		Short: "Put a network's bridge into a firewalld zone",
		Long: `Bind puts the bridge of a managed network into a firewalld zone: the named one,
or the one that the network's forward mode calls for.`,
		Args:              between(1, 2),
		ValidArgsFunction: a.completeBridges,
		RunE: a.do(func(ctx context.Context, c *client.Client, args []string) (result, error) {
			var zone string
			if len(args) == 2 {
				zone = args[1]
			}
			bound, err := c.Bind(ctx, args[0], zone)
			return binding{args[0], bound}, err
		}),
	}
}

type binding struct {
	Interface string `json:"interface"`
	Zone      string `json:"zone"`
}

func (b binding) text(o *output) {
	o.linef("%s is in the zone %s", printable(b.Interface), printable(b.Zone))
}

func (a *app) unbindCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "unbind INTERFACE",
		Short:             "Take a network's bridge out of its firewalld zone",
		Args:              between(1, 1),
		ValidArgsFunction: a.completeBridges,
		RunE: a.do(func(ctx context.Context, c *client.Client, args []string) (result, error) {
			return unbound{args[0]}, c.Unbind(ctx, args[0])
		}),
	}
}

type unbound struct {
	Interface string `json:"interface"`
}

func (u unbound) text(o *output) { o.linef("%s is in no zone", printable(u.Interface)) }

func (a *app) zonesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "zones",
		Short: "Manage the libvirt zones of firewalld",
		Args:  cobra.NoArgs,
		RunE:  needsVerb,
	}
	cmd.AddCommand(a.zonesInstallCommand(), a.zonesRemoveCommand(), a.zonesListCommand())
	return cmd
}

func (a *app) zonesInstallCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Add the missing libvirt zones and policies to firewalld",
		Long: `Install adds the libvirt zones and policies that firewalld does not have. firewalld
sees them only after a reload, which drops runtime changes that are not in its
permanent configuration: if there are any, the command fails and lists them,
unless --force is given.`,
		Args: between(0, 0),
		RunE: a.do(func(ctx context.Context, c *client.Client, _ []string) (result, error) {
			names, err := c.InstallZones(ctx, force)
			return zonesInstalled{names}, err
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "install even if firewalld's reload drops runtime changes of others")
	return cmd
}

type zonesInstalled struct {
	Installed []string `json:"installed"`
}

func (z zonesInstalled) text(o *output) {
	o.linef("installed: %s", printable(listed(z.Installed, "nothing, all were there")))
}

func (a *app) zonesRemoveCommand() *cobra.Command {
	var force, unbind bool
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "Take out of firewalld what install added",
		Long: `Remove takes out of firewalld the zones and policies that install added and that
nobody has changed since. It fails while a bridge is in one of the zones, unless
--unbind is given, and where firewalld's reload would drop runtime changes that are
not in its permanent configuration, unless --force is given.`,
		Args: between(0, 0),
		RunE: a.do(func(ctx context.Context, c *client.Client, _ []string) (result, error) {
			names, err := c.RemoveZones(ctx, force, unbind)
			if err != nil {
				return nil, err
			}
			h, err := c.Host(ctx)
			return zonesRemoved{names, without(h.InstalledZones, names)}, err
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "remove even if firewalld's reload drops runtime changes of others")
	cmd.Flags().BoolVar(&unbind, "unbind", false, "first take the bound interfaces out of the zones")
	return cmd
}

type zonesRemoved struct {
	Removed []string `json:"removed"`
	Kept    []string `json:"kept"` // there, but not from install, or changed since
}

func (z zonesRemoved) text(o *output) {
	nothing := "nothing, none was there"
	if len(z.Kept) > 0 {
		nothing = "nothing that install added was there unchanged"
	}
	o.linef("removed: %s", printable(listed(z.Removed, nothing)))
	if len(z.Kept) > 0 {
		o.linef("kept: %s (they came with a package, or were changed since)", printable(listed(z.Kept, "")))
	}
}

// without returns the names that are not among others.
func without(names, others []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(others, name) })
}

func (a *app) zonesListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Show firewalld, its libvirt zones and the bridges in zones",
		Args:  between(0, 0),
		RunE: a.read(func(ctx context.Context, c *client.Client, _ []string) (result, error) {
			h, err := c.Host(ctx)
			if err != nil {
				return nil, err
			}
			networks, err := c.Networks(ctx)
			if err != nil {
				return nil, err
			}
			return zoneOverview(h, networks), nil
		}),
	}
}

type zoneList struct {
	Running   bool      `json:"firewalld_running"`
	Backend   string    `json:"firewalld_backend"`
	Installed []string  `json:"installed_zones"`
	Bindings  []binding `json:"bindings"`
}

func zoneOverview(h client.Host, networks []client.Network) zoneList {
	z := zoneList{h.FirewalldRunning, h.FirewalldBackend, h.InstalledZones, []binding{}}
	for _, n := range networks {
		if n.BoundZone != "" {
			z.Bindings = append(z.Bindings, binding{n.Bridge, n.BoundZone})
		}
	}
	return z
}

func (z zoneList) text(o *output) {
	if !z.Running {
		o.linef("firewalld is not running")
		return
	}
	o.linef("firewalld is running, backend %s", printable(orElse(z.Backend, "unknown")))
	o.linef("installed: %s", printable(listed(z.Installed, "none")))
	if len(z.Bindings) == 0 {
		return
	}
	rows := [][]string{{"INTERFACE", "ZONE"}}
	for _, b := range z.Bindings {
		rows = append(rows, []string{b.Interface, b.Zone})
	}
	o.table(rows, 1)
}
